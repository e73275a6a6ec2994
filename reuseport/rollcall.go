package reuseport

import (
	"errors"
	"os"
	"sync"
	"time"
)

// rollCall finds out who of those that read a UDP socket has a datagram in hand,
// and may be about to answer it: whoever comes when called has none. A count of
// reads that are under way can't tell: one of them may have its datagram from
// the kernel already, on a thread that has lost its turn since.
type rollCall struct {
	interrupt func(time.Time) error // sets the socket's read deadline

	mu       sync.Mutex
	deadline time.Time     // the user's own
	over     chan struct{} // closed at the end; nil while none is on
	came     int64
	called   bool // there was one: deadlines may have been ours
}

// begin calls readers out of the kernel, and holds them until end.
func (r *rollCall) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over != nil {
		return
	}
	r.over, r.came, r.called = make(chan struct{}), 0, true
	_ = r.interrupt(time.Unix(1, 0)) // fails only on a closed socket, of which reads tell
}

// present returns how many have come.
func (r *rollCall) present() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.came
}

// end lets readers go on.
func (r *rollCall) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over == nil {
		return
	}
	_ = r.interrupt(r.deadline) // as in begin
	close(r.over)
	r.over = nil
}

// again reports whether a read that has failed was only called, and is to be
// tried once more. It returns after the end of the roll call.
func (r *rollCall) again(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	r.mu.Lock()
	over := r.over
	if over != nil {
		r.came++
	}
	ours := r.called && (r.deadline.IsZero() || time.Now().Before(r.deadline))
	r.mu.Unlock()
	if over == nil {
		return ours // the end has come first
	}
	<-over
	return true
}

// setDeadline sets the user's deadline.
func (r *rollCall) setDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	if r.over != nil {
		return nil // it takes effect at the end
	}
	return r.interrupt(t)
}
