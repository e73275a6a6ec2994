package reuseport

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// readBarrier finds out whether one of the readers of a UDP socket has a datagram
// in hand, and may be about to answer it from that socket. It interrupts the reads
// by a deadline and holds the readers that come out without a datagram. A count of
// reads under way can't tell: one of them may have its datagram from the kernel
// already, on a thread that has lost its turn since.
type readBarrier struct {
	setDeadline func(time.Time) error // of the socket's reads

	reading  atomic.Int64 // calls under way
	readers  atomic.Int64 // the most that there were at once
	bypassed atomic.Bool  // the user may read from the socket itself, and would see our deadline

	mu       sync.Mutex
	deadline time.Time     // the user's
	lowered  chan struct{} // closed when the barrier opens; nil while it is open
	held     int64
	used     bool // deadlines may have been ours
}

// run runs one read.
func (b *readBarrier) run(read func() error) error {
	n := b.reading.Add(1)
	defer b.reading.Add(-1)
	for most := b.readers.Load(); n > most && !b.readers.CompareAndSwap(most, n); {
		most = b.readers.Load()
	}
	err := read()
	for err != nil && b.interrupted(err) {
		err = read()
	}
	return err
}

// answering reports whether a reader has not come back for the next datagram. With
// hold, that is certain, and the readers that have come back are held until open.
func (b *readBarrier) answering(hold bool) bool {
	if !hold || b.bypassed.Load() {
		return b.reading.Load() < b.readers.Load()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lowered == nil {
		b.lowered, b.held, b.used = make(chan struct{}), 0, true
		_ = b.setDeadline(time.Unix(1, 0)) // fails on a closed socket, as reads do
	}
	return b.held < b.readers.Load()
}

// open lets the readers read.
func (b *readBarrier) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lowered == nil {
		return
	}
	_ = b.setDeadline(b.deadline) // as in answering
	close(b.lowered)
	b.lowered = nil
}

// interrupted reports whether the barrier has interrupted a read that has failed
// with err, and returns when it is open.
func (b *readBarrier) interrupted(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	b.mu.Lock()
	lowered := b.lowered
	if lowered != nil {
		b.held++
	}
	ours := b.used && (b.deadline.IsZero() || time.Now().Before(b.deadline))
	b.mu.Unlock()
	if lowered == nil {
		return ours // the barrier has opened first
	}
	<-lowered
	return true
}

// userDeadline sets the deadline of the user's reads.
func (b *readBarrier) userDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deadline = t
	if b.lowered != nil {
		return nil // open sets it
	}
	return b.setDeadline(t)
}
