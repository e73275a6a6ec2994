package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// TestAdopt passes on a conversation, again and again, while the oldest process
// moves connections over it: each arrives exactly once.
func TestAdopt(t *testing.T) {
	t.Parallel()
	oldest, f := commit(t, 10*time.Second)
	w := newWitness(t)
	var mu sync.Mutex
	seen := map[string]int{}
	deliver := func(_ string, state []byte, fd int) bool {
		_ = fdx.Close(fd) // counted
		mu.Lock()
		seen[string(state)]++
		mu.Unlock()
		return true
	}
	f.Deliver = deliver
	f.Told = func(wire.Linger) {}
	oldestDone := run(oldest.Run)

	const count = 2000
	var moves sync.WaitGroup
	fd := w.dup()
	for i := range 4 {
		moves.Go(func() {
			for j := range count / 4 {
				if err := oldest.Move(context.Background(), "x", fmt.Append(bytes.Repeat([]byte("s"), 1000), i, " ", j), fd); err != nil {
					t.Errorf("Move() = %v", err)
				}
				oldest.Tell(wire.Linger{Open: uint64(j)})
			}
		})
	}
	sent := run(moves.Wait)

	// Each generation follows the oldest and is replaced by the next.
	passes := 0
	for more := true; more; {
		following := run(func() { f.Run() })
		l, next := commit(t, 10*time.Second)
		adopted := make(chan *session.Following, 1)
		next.Adopt = func(m wire.Adopt, fd int) bool {
			if m.Generation != 1 || m.Build != "old" {
				t.Errorf("Adopt = %+v", m)
			}
			c, err := fdx.Conn(fd, "adopted")
			if err != nil {
				t.Error(err)
				return false
			}
			g := session.Follow(session.NewWireLink(fdpass.New(c.(*net.UnixConn)), 10*time.Second), m)
			adopted <- g
			return true
		}
		lingering, nextDone := run(l.Run), run(func() { next.Run() })
		select {
		case <-sent:
			more = false
		default:
		}
		if !f.Detach() {
			t.Fatal("Detach() = false")
		}
		within(t, following, "Following.Run")
		p := f.Predecessor()
		err := f.Link().(*session.WireLink).Lend(func(fd int) error {
			return l.Adopt(wire.Adopt{Version: p.Version, Generation: p.Generation, PID: p.PID, Build: p.Build}, fd)
		})
		if err != nil {
			t.Fatalf("Adopt() = %v", err)
		}
		if err := f.Link().Close(); err != nil {
			t.Error(err)
		}
		f = <-adopted
		f.Deliver = deliver
		f.Told = func(wire.Linger) {}
		passes++
		l.Bye(wire.Bye{})
		within(t, lingering, "Lingering.Run")
		within(t, nextDone, "Following.Run")
	}
	following := run(func() {
		if bye, clean := f.Run(); !clean || bye.Moved != count {
			t.Errorf("Following.Run() = %+v, %t", bye, clean)
		}
	})
	within(t, sent, "Move")
	oldest.Bye(wire.Bye{Moved: count})
	within(t, oldestDone, "Lingering.Run")
	within(t, following, "Following.Run")
	t.Logf("passed on %d times", passes)
	if len(seen) != count {
		t.Errorf("%d connections arrived, want %d", len(seen), count)
	}
	for state, n := range seen {
		if n != 1 {
			t.Errorf("connection %q arrived %d times", state[1000:], n)
		}
	}
	w.gone()
}

// TestAdoptNotTaken has the successor refuse an older conversation. Adopt owns
// the descriptor: it is closed once.
func TestAdoptNotTaken(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	w := newWitness(t)
	reused := -1
	f.Adopt = func(_ wire.Adopt, fd int) bool {
		closeAll(t, []int{fd})
		// The next descriptor of the process may get that number.
		if r, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			reused = r
		}
		return false
	}
	lingering, following := run(l.Run), run(func() { f.Run() })
	if err := l.Adopt(wire.Adopt{}, w.dup()); !errors.Is(err, session.ErrNotTaken) {
		t.Errorf("Adopt() = %v, want ErrNotTaken", err)
	}
	l.Bye(wire.Bye{})
	within(t, lingering, "Lingering.Run")
	within(t, following, "Following.Run")
	if err := fdx.Close(reused); err != nil {
		t.Errorf("a descriptor that is not its own was closed: %v", err)
	}
	if err := l.Adopt(wire.Adopt{}, 0); !errors.Is(err, session.ErrGone) {
		t.Errorf("Adopt() = %v, want ErrGone", err)
	}
	w.gone()
}
