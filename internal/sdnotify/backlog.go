package sdnotify

import (
	"errors"
	"os"
	"sync"
)

// A Backlog is what systemd is still to be told, because its socket was full. The
// zero value is empty. It may be used from several goroutines.
type Backlog struct {
	mu    sync.Mutex
	all   []Message     // in order; the first is being sent
	after []func()      // to do when it has heard all
	heard chan struct{} // closed then; nil if nothing waits
}

// Add adds a message, and reports whether it is the first: then the caller has
// [Backlog.Tell] run.
func (b *Backlog) Add(m Message) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first = b.heard == nil
	if first {
		b.heard = make(chan struct{})
	}
	b.all = append(b.all, m)
	return first
}

// AddBehind adds a message behind those that wait. Without any it adds none, and
// reports false.
func (b *Backlog) AddBehind(m Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	waits := b.heard != nil
	if waits {
		b.all = append(b.all, m)
	}
	return waits
}

// Tell sends what waits by n, in order, until systemd has heard all; where the socket
// is full, again and again. What fails otherwise is dropped. Every failure goes to
// failed. When the socket is full after end is closed, Tell gives up, and returns the
// message that it was at.
func (b *Backlog) Tell(n *Notifier, end <-chan struct{}, failed func(Message, error)) (untold Message) {
	for {
		b.mu.Lock()
		m := b.all[0]
		b.mu.Unlock()
		err := n.Send(m)
		if err != nil {
			failed(m, err)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-end:
				return m
			default:
				continue
			}
		}
		if !b.next() {
			return nil
		}
	}
}

// next takes the message off that was sent, and reports whether one is behind it. If
// none is, it does what is to be done then.
func (b *Backlog) next() bool {
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
		return true
	}
	close(b.heard)
	b.heard = nil
	return false
}

// Then does f when systemd has heard all, which may be now, or never.
func (b *Backlog) Then(f func()) {
	b.mu.Lock()
	if b.heard != nil {
		b.after = append(b.after, f)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	f()
}

// Told returns a channel that is closed when systemd has heard all.
func (b *Backlog) Told() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.heard != nil {
		return b.heard
	}
	none := make(chan struct{})
	close(none)
	return none
}
