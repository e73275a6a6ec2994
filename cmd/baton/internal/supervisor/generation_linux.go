package supervisor

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A generation is one process of the app, with what it has started in its process
// group.
type generation struct {
	number int
	pid    int
	pgid   int
	after  int // process ID of the one that served when it was started; 0 for none

	program *program // nil if it can't be kept

	began  time.Time
	served time.Time // since when it is ready; zero before

	cancel  context.CancelFunc // of await; nil for one that was adopted
	unwatch func()             // for one that was adopted, else nil

	spoke   bool   // it has said READY=1
	leaving bool   // it has said STOPPING=1: it knows that it is to end
	givenUp string // why it is to end without a successor: the app is started again when it has ended

	told  bool        // it was sent the stop signal
	leave *time.Timer // when it is, unless it says that it ends by itself; nil mostly
	limit time.Time   // when it is killed
	kill  *time.Timer // at limit; nil as long as it need not end
}

// end forgets what was for the process alone.
func (g *generation) end() {
	if g.cancel != nil {
		g.cancel()
	}
	if g.unwatch != nil {
		g.unwatch()
	}
	for _, t := range []*time.Timer{g.leave, g.kill} {
		if t != nil {
			t.Stop()
		}
	}
	g.program.close()
	g.program = nil
}

// signal sends a signal to the main process. It has not been waited for, so that
// no other process has its process ID; the parent of an adopted one may have waited.
func (g *generation) signal(sig syscall.Signal) {
	_ = unix.Kill(g.pid, sig) // it may have ended
}

// terminate has a generation end, gracefully first.
func (s *Supervisor) terminate(g *generation, why string) {
	if g.kill != nil {
		return // the signal was sent
	}
	if g.cancel != nil {
		g.cancel()
	}
	g.told = true
	s.log.Info("ending the app", "generation", g.number, "pid", g.pid, "signal", unix.SignalName(s.stopSignal), "why", why)
	g.signal(s.stopSignal)
	s.killIn(g, s.cfg.StopTimeout)
}

// killIn sets the time that a generation has left.
func (s *Supervisor) killIn(g *generation, d time.Duration) {
	if g.kill != nil {
		g.kill.Stop()
	}
	g.limit = time.Now().Add(d)
	g.kill = time.AfterFunc(d, func() {
		s.todo.add(func() {
			if s.byPID[g.pid] == g && !time.Now().Before(g.limit) {
				s.log.Warn("the app did not end in time: it is killed", "generation", g.number, "pid", g.pid)
				s.killed = s.killed || s.stopping
				s.killNow(g)
			}
		})
	})
}

// extend gives a generation that has to end at least so much time from now on.
func (s *Supervisor) extend(g *generation, d time.Duration) {
	if g.kill != nil && time.Now().Add(d).After(g.limit) {
		s.killIn(g, d)
	}
}

// killNow kills a generation and what it has started, unless another one is of the
// same group.
func (s *Supervisor) killNow(g *generation) {
	g.signal(unix.SIGKILL)
	s.killGroup(g)
}

// killGroup kills what is left of a generation's process group, where that is its
// alone.
func (s *Supervisor) killGroup(g *generation) {
	for _, other := range s.byPID {
		if other != g && other.pgid == g.pgid {
			return
		}
	}
	_ = unix.Kill(-g.pgid, unix.SIGKILL) // there may be none
}
