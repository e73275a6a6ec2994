package supervisor

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// forwarded are the signals that are forwarded to the app.
func forwarded() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGWINCH}
}

// handled are all signals with a meaning, but for those that were ignored at the start:
// the app inherits that. As PID 1 of a namespace, a process gets only
// the signals that it handles (pid_namespaces(7)). With SIGPIPE handled, writing a log
// to a closed pipe is an error and does not end the process (os/signal). If SIGPIPE
// were ignored, the app would inherit that (execve(2)).
func handled() []os.Signal {
	return slices.DeleteFunc(append(forwarded(), unix.SIGTERM, unix.SIGINT, unix.SIGUSR2, unix.SIGPIPE), signal.Ignored)
}

// signal does what a signal stands for.
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
		s.log.Warn("second stop signal: killing the app", "signal", unix.SignalName(sig))
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

// stop ends all generations, and Run after them. Generations that end already only get
// a time limit.
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
	if s.lostMain != nil {
		s.killGroup(s.lostMain)
		s.lostMain = nil
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

// stopped returns the result of Run.
func (s *Supervisor) stopped() error {
	if s.result == nil && s.killed {
		return fmt.Errorf("%w: it did not end within %v and was killed", ErrFailed, s.cfg.StopTimeout)
	}
	return s.result
}
