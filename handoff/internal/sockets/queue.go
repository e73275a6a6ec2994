package sockets

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// A queue brings what comes out of another socket to the callers of Accept, or of
// a read, on this one. While it is empty it costs an atomic load.
type queue[T any] struct {
	gate *gate
	n    atomic.Int32

	mu      sync.Mutex
	entries []*queued[T]
}

type queued[T any] struct {
	v     T
	taken chan struct{}
}

// push offers v until a caller takes it, or until stop is closed. It reports
// whether a caller has taken it.
func (q *queue[T]) push(v T, stop <-chan struct{}) bool {
	e := &queued[T]{v, make(chan struct{})}
	q.mu.Lock()
	q.entries = append(q.entries, e)
	q.n.Add(1)
	q.gate.poke(true)
	q.mu.Unlock()
	select {
	case <-e.taken:
		return true
	case <-stop:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.entries, e)
	if i < 0 {
		return true
	}
	q.removeLocked(i)
	return false
}

// pop takes the oldest entry.
func (q *queue[T]) pop() (v T, ok bool) {
	if q.n.Load() == 0 {
		return v, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		return v, false
	}
	e := q.entries[0]
	q.removeLocked(0)
	close(e.taken)
	return e.v, true
}

func (q *queue[T]) removeLocked(i int) {
	q.entries = slices.Delete(q.entries, i, i+1)
	if q.n.Add(-1) == 0 {
		q.gate.poke(false)
	}
}

// waiting reports whether a caller can take something.
func (q *queue[T]) waiting() bool { return q.n.Load() > 0 }

// pass runs f, a blocking call on a socket, inside of its gate, or calls offered with
// what another socket has received. It ends when closed, if that is not nil, is closed.
func pass[T any](g *gate, closed *turnedAway, q *queue[T], offered func(T), f func() error) error {
	for {
		if closed.closed() {
			return g.opError(net.ErrClosed)
		}
		shut := g.enter()
		v, ok := q.pop()
		if shut == errPoked && !ok {
			continue // another call has it, or some calls are turned away
		}
		if shut != nil && !ok {
			return shut
		}
		var err error
		if ok {
			offered(v)
		} else {
			err = f()
		}
		if shut == nil {
			g.exit()
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !q.waiting() && !g.again() {
			return err
		}
	}
}
