package supervisor

import (
	"context"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

// leaveTime is how long a generation that speaks the notify protocol has to announce
// its end (STOPPING=1) after its successor is ready. An app of package handoff
// announces it, and must not get the stop signal then, which would cut its open
// connections.
const leaveTime = time.Second

// upgrade starts the next generation, or queues an upgrade.
func (s *Supervisor) upgrade() {
	switch {
	case s.stopping:
		s.log.Warn("upgrade refused: baton is stopping")
	case s.coming != nil || s.asking:
		s.asked = true
		s.log.Info("an upgrade is under way or the app is not ready: the next upgrade is queued")
	case s.serving != nil && s.cfg.Ready.Control != nil:
		s.askMode(s.serving)
	case s.serving != nil:
		s.start(true)
	case s.again != nil: // the app is down
		s.again.Stop()
		s.backoff.reset()
		s.start(true)
	default: // a generation that was given up is about to end
		s.asked = true
	}
}

// askMode asks the app for its mode: in mode Inherit only the predecessor can start the
// successor.
func (s *Supervisor) askMode(g *generation) {
	s.asking = true
	s.wg.Go(func() { // bounded by a timeout
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		st, err := s.cfg.Ready.Control.Status(ctx)
		s.todo.add(func() {
			s.asking = false
			switch {
			case s.stopping:
			case g != s.serving:
				s.upgrade() // start the queued upgrade
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

// askUpgrade has the app upgrade itself. The new main process is adopted when it
// announces itself.
func (s *Supervisor) askUpgrade() {
	s.asking = true
	s.wg.Go(func() { // bounded by a timeout
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
				s.adopt(s.serving, r.Successor.PID) // in case its notification has not been handled yet
			}
			if s.asked {
				s.asked = false
				s.upgrade()
			}
		})
	})
}

// failed ends an upgrade that has failed. The serving generation was never stopped.
func (s *Supervisor) failed(why string) {
	kv := []any{"error", why}
	if s.serving != nil {
		kv = append(kv, "serving", s.serving.number, "pid", s.serving.pid)
	}
	s.log.Error("upgrade failed: the running app serves on", kv...)
	if s.asked {
		s.asked = false
		s.upgrade()
	}
}

// retire ends a generation that has a successor.
func (s *Supervisor) retire(g *generation) {
	switch {
	case g.leaving || s.cfg.Ready.Control != nil:
		// It ends by its own limit when its open connections are done.
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
