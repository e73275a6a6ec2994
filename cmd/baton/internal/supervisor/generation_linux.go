package supervisor

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A generation is one process of the app, with the processes that it has started in its
// process group.
type generation struct {
	number int
	pid    int
	pgid   int
	after  int // process ID of the generation that served when this one started; 0 if none did

	program *program // nil if the program can't be kept open

	began  time.Time
	served time.Time // when it became ready; zero until then

	cancel  context.CancelFunc // of await; nil for an adopted process
	unwatch func()             // for an adopted process, else nil

	spoke   bool   // it has sent READY=1
	leaving bool   // it has sent STOPPING=1: it ends by itself
	givenUp string // why it ends without a successor: the app is restarted after its end

	signalled bool        // the stop signal was sent
	leave     *time.Timer // sends the stop signal unless STOPPING=1 arrives first; usually nil
	limit     time.Time   // when it is killed
	kill      *time.Timer // at limit; nil while it may run
}

// end releases what belongs to the process.
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

// signal sends a signal to the main process. A child has not been waited for, so its
// process ID is still its own. The parent of an adopted process may already have waited
// for it.
func (g *generation) signal(sig syscall.Signal) {
	_ = unix.Kill(g.pid, sig) // it may have ended
}

// terminate ends a generation, gracefully first.
func (s *Supervisor) terminate(g *generation, why string) {
	if g.kill != nil {
		return // it is ending already
	}
	if g.cancel != nil {
		g.cancel()
	}
	g.signalled = true
	s.log.Info("sending the stop signal", "generation", g.number, "pid", g.pid, "signal", unix.SignalName(s.stopSignal), "why", why)
	g.signal(s.stopSignal)
	s.killIn(g, s.cfg.StopTimeout)
}

// killIn limits the time that a generation has left.
func (s *Supervisor) killIn(g *generation, d time.Duration) {
	if g.kill != nil {
		g.kill.Stop()
	}
	g.limit = time.Now().Add(d)
	g.kill = time.AfterFunc(d, func() {
		s.todo.add(func() {
			if s.byPID[g.pid] == g && !time.Now().Before(g.limit) {
				s.log.Warn("the app did not end in time: killing it", "generation", g.number, "pid", g.pid)
				s.killed = s.killed || s.stopping
				s.killNow(g)
			}
		})
	})
}

// extend gives an ending generation at least d from now on.
func (s *Supervisor) extend(g *generation, d time.Duration) {
	if g.kill != nil && time.Now().Add(d).After(g.limit) {
		s.killIn(g, d)
	}
}

// killNow kills a generation and what it has started, unless another generation shares
// its process group.
func (s *Supervisor) killNow(g *generation) {
	g.signal(unix.SIGKILL)
	s.killGroup(g)
}

// killGroup kills what is left of a generation's process group, unless another
// generation is in it.
func (s *Supervisor) killGroup(g *generation) {
	for _, other := range s.byPID {
		if other != g && other.pgid == g.pgid {
			return
		}
	}
	_ = unix.Kill(-g.pgid, unix.SIGKILL) // the group may be empty
}
