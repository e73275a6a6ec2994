package supervisor

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// forwarded are the signals that the app gets when we do.
func forwarded() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGWINCH}
}

// handled are all signals that mean something. As PID 1 of a namespace a process
// gets no signal that it does not handle (pid_namespaces(7)). With SIGPIPE handled,
// writing a log that has no reader is an error and does not end this process (os/signal); were
// it ignored, the app would be born that way (execve(2)).
func handled() []os.Signal {
	return append(forwarded(), unix.SIGTERM, unix.SIGINT, unix.SIGUSR2, unix.SIGPIPE)
}

// signal does what a signal says.
func (s *Supervisor) signal(sig syscall.Signal) {
	switch sig {
	case unix.SIGPIPE:
	case unix.SIGUSR2:
		s.log.Info("upgrade", "signal", "SIGUSR2")
		s.upgrade()
	case unix.SIGTERM, unix.SIGINT:
		if !s.stopping {
			s.stop("signal " + unix.SignalName(sig))
			return
		}
		s.log.Warn("stop again: the app is killed", "signal", unix.SignalName(sig))
		s.killed = true
		for _, g := range s.byPID {
			s.killNow(g)
		}
	default:
		g := s.serving
		if g == nil {
			g = s.coming
		}
		if g == nil {
			s.log.Warn("signal dropped: the app is down", "signal", unix.SignalName(sig))
			return
		}
		s.log.Debug("signal", "signal", unix.SignalName(sig), "generation", g.number, "pid", g.pid)
		g.signal(sig)
	}
}

// stop has all generations end, and Run when they have. Those that have no stop
// signal to mind any more only get a limit.
func (s *Supervisor) stop(why string) {
	if s.stopping {
		return
	}
	s.stopping = true
	s.log.Info("stopping", "why", why)
	s.manager.Send(sdnotify.Message{sdnotify.Stopping})
	if s.again != nil {
		s.again.Stop()
	}
	if s.heirOf != nil {
		s.killGroup(s.heirOf)
		s.heirOf = nil
	}
	for _, g := range s.byPID {
		switch {
		case g.kill != nil:
		case g.leaving:
			s.killIn(g, s.cfg.StopTimeout)
		default:
			s.terminate(g, "stop")
		}
	}
	s.over = len(s.byPID) == 0
}

// stopped is what Run returns.
func (s *Supervisor) stopped() error {
	if s.result == nil && s.killed {
		return fmt.Errorf("%w: it did not end within %v and was killed", ErrFailed, s.cfg.StopTimeout)
	}
	return s.result
}
