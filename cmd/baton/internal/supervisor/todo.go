package supervisor

import "sync"

// todo is what other goroutines have for the one that owns the state. Adding never
// waits, so that the owner may wait for them.
type todo struct {
	mu   sync.Mutex
	all  []func()
	wake chan struct{} // capacity 1
}

func newTodo() *todo { return &todo{wake: make(chan struct{}, 1)} }

// add adds something to do, in order.
func (t *todo) add(f func()) {
	t.mu.Lock()
	t.all = append(t.all, f)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default: // the owner is awake
	}
}

// take takes what there is.
func (t *todo) take() []func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.all
	t.all = nil
	return all
}
