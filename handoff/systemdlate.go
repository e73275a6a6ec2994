package handoff

import (
	"errors"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// lateTimeout is how long a process that was replaced stays for a systemd that reads
// nothing: it would take our end for the service's, and end our successor.
const lateTimeout = time.Minute

// sendSystemd tells systemd something that it has to hear: at once or, where it does
// not read what it is told, when it does again.
func (u *Upgrader) sendSystemd(m ...string) {
	s := u.systemd
	if s.late.AddBehind(m) {
		return
	}
	err := s.notifier.Send(m)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		u.log.Warn("systemd reads nothing: it is told when it does", "error", err)
		if s.late.Add(m) {
			u.wg.Go(u.tellLate) // ends with closing
		}
		return
	}
	if err != nil {
		u.log.Warn("systemd", "error", err)
	}
}

// pulseSystemd tells systemd something that is worth nothing later.
func (u *Upgrader) pulseSystemd(m ...string) {
	select {
	case <-u.systemd.late.Told():
	default:
		return
	}
	if err := u.systemd.notifier.Send(m); err != nil {
		u.log.Warn("systemd", "error", err)
	}
}

// tellLate tells systemd what it did not read, in order.
func (u *Upgrader) tellLate() {
	s := u.systemd
	untold := s.late.Tell(s.notifier, u.closing, func(_ sdnotify.Message, err error) {
		if !errors.Is(err, os.ErrDeadlineExceeded) { // it is gone
			u.log.Warn("systemd", "error", err)
		}
	})
	if untold != nil {
		u.log.Error("systemd was never told", "what", untold)
	}
}

// awaitLate waits until systemd has heard who has replaced this process, in time.
func (u *Upgrader) awaitLate() {
	t := time.NewTimer(lateTimeout)
	defer t.Stop()
	select {
	case <-u.systemd.late.Told():
	case <-t.C:
	}
}
