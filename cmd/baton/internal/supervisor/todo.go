package supervisor

import "sync"

// todo is a queue of functions for the goroutine that owns the state. add never blocks,
// so the owner may wait for goroutines that call it.
type todo struct {
	mu   sync.Mutex
	all  []func()
	wake chan struct{} // capacity 1
}

func newTodo() *todo { return &todo{wake: make(chan struct{}, 1)} }

// add appends a function.
func (t *todo) add(f func()) {
	t.mu.Lock()
	t.all = append(t.all, f)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default: // the owner is woken already
	}
}

// take returns and removes all functions.
func (t *todo) take() []func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.all
	t.all = nil
	return all
}
