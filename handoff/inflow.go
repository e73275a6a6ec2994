package handoff

import (
	"slices"
	"sync"
	"sync/atomic"
)

// inflow brings what comes out of other sockets to the callers of Accept, or of
// a read, on ours: see takeIn. While it is empty it costs an atomic load.
type inflow[T any] struct {
	gate *gate
	n    atomic.Int32

	mu    sync.Mutex
	queue []*arrival[T]
}

type arrival[T any] struct {
	v     T
	taken chan struct{}
}

// push offers v until a caller takes it, or until stop is closed. It reports
// whether it was taken.
func (f *inflow[T]) push(v T, stop <-chan struct{}) bool {
	a := &arrival[T]{v, make(chan struct{})}
	f.mu.Lock()
	f.queue = append(f.queue, a)
	f.n.Add(1)
	f.gate.poke()
	f.mu.Unlock()
	select {
	case <-a.taken:
		return true
	case <-stop:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.queue, a)
	if i < 0 {
		return true
	}
	f.removeLocked(i)
	return false
}

// pop takes what has waited for longest.
func (f *inflow[T]) pop() (v T, ok bool) {
	if f.n.Load() == 0 {
		return v, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return v, false
	}
	a := f.queue[0]
	f.removeLocked(0)
	close(a.taken)
	return a.v, true
}

func (f *inflow[T]) removeLocked(i int) {
	f.queue = slices.Delete(f.queue, i, i+1)
	if f.n.Add(-1) == 0 {
		f.gate.calm()
	}
}

// waiting reports whether something can be taken.
func (f *inflow[T]) waiting() bool { return f.n.Load() > 0 }
