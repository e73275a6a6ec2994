package supervisor

import (
	"context"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

// leaveTime is what a generation that speaks the notify protocol has to say by
// itself that it ends (STOPPING=1) when its successor is ready. One of package
// handoff does, and must not get the stop signal then: it would cut its open
// connections.
const leaveTime = time.Second

// upgrade starts the next generation, or notes that one is wanted.
func (s *Supervisor) upgrade() {
	switch {
	case s.stopping:
		s.log.Warn("no upgrade: stopping")
	case s.coming != nil || s.asking:
		s.asked = true
		s.log.Info("an upgrade is under way, or the app is not ready: another one follows")
	case s.serving != nil && s.cfg.Ready.Control != nil:
		s.askMode(s.serving)
	case s.serving != nil:
		s.start(true)
	case s.again != nil: // the app is down
		s.again.Stop()
		s.backoff.reset()
		s.start(true)
	default: // one that was given up is about to end
		s.asked = true
	}
}

// askMode finds out which process is to start the successor: in mode Inherit only the
// predecessor can.
func (s *Supervisor) askMode(g *generation) {
	s.asking = true
	s.wg.Go(func() { // ends in time
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		st, err := s.cfg.Ready.Control.Status(ctx)
		s.todo.add(func() {
			s.asking = false
			switch {
			case s.stopping:
			case g != s.serving:
				s.upgrade() // it is another one's turn
			case err != nil:
				s.failed("the app does not answer at its control socket: " + err.Error())
			case st.Mode == handoff.Inherit:
				s.askUpgrade()
			default:
				s.start(true)
			}
		})
	})
}

// askUpgrade has the app upgrade itself. Its new main process is adopted when it
// tells of that.
func (s *Supervisor) askUpgrade() {
	s.asking = true
	s.wg.Go(func() { // ends in time
		ctx, cancel := context.WithTimeout(context.Background(), 2*s.cfg.ReadyTimeout)
		defer cancel()
		r, err := s.cfg.Ready.Control.Upgrade(ctx, &control.UpgradeConfig{Timeout: s.cfg.ReadyTimeout})
		s.todo.add(func() {
			s.asking = false
			switch {
			case err != nil:
				s.failed(err.Error())
				return
			case s.serving != nil && s.serving.pid != r.Successor.PID:
				s.adopt(s.serving, r.Successor.PID) // its notification has not arrived, or is not read yet
			}
			if s.asked {
				s.asked = false
				s.upgrade()
			}
		})
	})
}

// failed handles the failure of an upgrade. The generation that serves was
// never stopped.
func (s *Supervisor) failed(why string) {
	kv := []any{"error", why}
	if s.serving != nil {
		kv = append(kv, "serving", s.serving.number, "pid", s.serving.pid)
	}
	s.log.Error("upgrade failed: the app serves on as it was", kv...)
	if s.asked {
		s.asked = false
		s.upgrade()
	}
}

// retire has a generation end that has a successor.
func (s *Supervisor) retire(g *generation) {
	switch {
	case g.leaving || s.cfg.Ready.Control != nil:
		// It ends when its open connections are done, by its own limit.
	case g.spoke:
		g.leave = time.AfterFunc(leaveTime, func() {
			s.todo.add(func() {
				if s.byPID[g.pid] == g && !g.leaving {
					s.terminate(g, "its successor is ready")
				}
			})
		})
	default:
		s.terminate(g, "its successor is ready")
	}
}
