package handoff

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// lateTimeout is how long a process that was replaced stays for a systemd that reads
// nothing: it would take our end for the service's, and end our successor.
const lateTimeout = time.Minute

// A backlog is what systemd is still to be told, because its socket was full.
type backlog struct {
	mu    sync.Mutex
	all   []sdnotify.Message // in order; the first is being sent
	after []func()           // to do when it has heard all
	heard chan struct{}      // closed then; nil if nothing waits
}

// add adds a message behind those that wait, if there are any or must is set. It
// reports whether it has, and whether it is the first.
func (b *backlog) add(m sdnotify.Message, must bool) (added, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first = b.heard == nil
	if first && !must {
		return false, false
	}
	if first {
		b.heard = make(chan struct{})
	}
	b.all = append(b.all, m)
	return true, first
}

// next takes the message off that was sent, and returns the one behind it. If there
// is none it does what is to be done then.
func (b *backlog) next() (sdnotify.Message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = b.all[1:]
	for len(b.all) == 0 && len(b.after) > 0 {
		after := b.after
		b.after = nil
		b.mu.Unlock()
		for _, f := range after {
			f()
		}
		b.mu.Lock()
	}
	if len(b.all) > 0 {
		return b.all[0], true
	}
	close(b.heard)
	b.heard = nil
	return nil, false
}

// then does f when systemd has heard all, which may be now, or never.
func (b *backlog) then(f func()) {
	b.mu.Lock()
	if b.heard != nil {
		b.after = append(b.after, f)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	f()
}

// told returns a channel that is closed when systemd has heard all.
func (b *backlog) told() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.heard != nil {
		return b.heard
	}
	none := make(chan struct{})
	close(none)
	return none
}

// sendSystemd tells systemd something that it has to hear: at once or, where it does
// not read what it is told, when it does again.
func (u *Upgrader) sendSystemd(m ...string) {
	s := u.systemd
	if added, _ := s.late.add(m, false); added {
		return
	}
	err := s.notifier.Send(m)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		u.log.Warn("systemd reads nothing: it is told when it does", "error", err)
		if _, first := s.late.add(m, true); first {
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
	case <-u.systemd.late.told():
	default:
		return
	}
	if err := u.systemd.notifier.Send(m); err != nil {
		u.log.Warn("systemd", "error", err)
	}
}

// tellLate tells systemd what it did not read, in order.
func (u *Upgrader) tellLate() {
	b := &u.systemd.late
	b.mu.Lock()
	m, more := b.all[0], true
	b.mu.Unlock()
	for more {
		err := u.systemd.notifier.Send(m)
		switch {
		case err == nil:
			m, more = b.next()
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded): // it is gone
			u.log.Warn("systemd", "error", err)
			m, more = b.next()
			continue
		}
		select {
		case <-u.closing:
			u.log.Error("systemd was never told", "what", m)
			return
		default:
		}
	}
}

// awaitLate waits until systemd has heard who has replaced this process, in time.
func (u *Upgrader) awaitLate() {
	t := time.NewTimer(lateTimeout)
	defer t.Stop()
	select {
	case <-u.systemd.late.told():
	case <-t.C:
	}
}
