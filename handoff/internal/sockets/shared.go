package sockets

import "sync"

// shared lets callers that come at once share one run of a function whose result is a
// moment's: many readers of a status would ask the kernel about each socket over and
// over, while an upgrade needs the processor. The zero value is ready to use.
type shared[T any] struct {
	mu      sync.Mutex
	next    *sharedRun[T]   // the one that has not begun; nil if no caller waits for one
	running <-chan struct{} // closed at the end of the run before
}

type sharedRun[T any] struct {
	done   chan struct{}
	result T
}

// get returns the result of a run that began after the call of get. At most one runs at
// a time.
func (s *shared[T]) get(run func() T) T {
	s.mu.Lock()
	if r := s.next; r != nil {
		s.mu.Unlock()
		<-r.done
		return r.result
	}
	r := &sharedRun[T]{done: make(chan struct{})}
	before := s.running
	s.next, s.running = r, r.done
	s.mu.Unlock()
	if before != nil {
		<-before
	}
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	r.result = run()
	close(r.done)
	return r.result
}
