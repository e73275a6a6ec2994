package session_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

func TestEndLinger(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	told := make(chan wire.Linger, 1)
	f.Told = func(m wire.Linger) { told <- m }
	lingering, following := run(l.Run), run(func() {
		if bye, clean := f.Run(); !clean || bye.Cut != 3 {
			t.Errorf("Following.Run() = %+v, %t", bye, clean)
		}
	})
	l.Tell(wire.Linger{Open: 3, Remaining: -1})
	if m := <-told; m.Open != 3 || m.Remaining >= 0 {
		t.Errorf("told %+v", m)
	}
	l.Account(wire.Account{Body: []byte("[]")}) // the successor has no hook for it
	f.End("too many")
	f.End("again")
	if got := <-l.Asked(); got != "too many" {
		t.Errorf("Asked() = %q", got)
	}
	l.Bye(wire.Bye{Cut: 3})
	within(t, lingering, "Lingering.Run")
	within(t, following, "Following.Run")
	if f.Detach() {
		t.Error("Detach() = true after Bye")
	}
}

// TestByeWhileMoving says Bye while connections stream out: no call waits for
// ever, and what moved is what was taken.
func TestByeWhileMoving(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	w := newWitness(t)
	var taken int
	f.Deliver = func(_ string, _ []byte, fd int) bool {
		_ = fdx.Close(fd) // counted
		taken++
		return true
	}
	lingering, following := run(l.Run), run(func() {
		if _, clean := f.Run(); !clean {
			t.Error("Following.Run() had no Bye")
		}
	})
	var moves sync.WaitGroup
	var mu sync.Mutex
	moved := 0
	first := make(chan struct{})
	var once sync.Once
	for range 8 {
		fd := w.dup()
		moves.Go(func() { // ends with the linger
			for l.Move(context.Background(), "x", nil, fd) == nil {
				mu.Lock()
				moved++
				mu.Unlock()
				once.Do(func() { close(first) })
			}
		})
	}
	<-first
	l.Bye(wire.Bye{})
	within(t, lingering, "Lingering.Run")
	within(t, following, "Following.Run")
	moves.Wait()
	if moved != taken {
		t.Errorf("%d moved, %d taken", moved, taken)
	}
	w.gone()
}

// TestByeToHung says Bye while a move waits for a successor that does not
// answer.
func TestByeToHung(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 100*time.Millisecond)
	w := newWitness(t)
	held, release := make(chan struct{}), make(chan struct{})
	f.Deliver = func(_ string, _ []byte, fd int) bool {
		close(held)
		<-release
		_ = fdx.Close(fd) // counted
		return true
	}
	lingering, following := run(l.Run), run(func() { f.Run() })
	moved := make(chan error, 1)
	fd := w.dup()
	go func() { moved <- l.Move(context.Background(), "x", nil, fd) }()
	<-held
	l.Bye(wire.Bye{})
	within(t, lingering, "Lingering.Run")
	// It takes the connection when it wakes up: the caller must not go on with it.
	if err := <-moved; !errors.Is(err, failure.InDoubt) {
		t.Errorf("Move() = %v, want ErrInDoubt", err)
	}
	close(release)
	within(t, following, "Following.Run")
	w.gone()
}
