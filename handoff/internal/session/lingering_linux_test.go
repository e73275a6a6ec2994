package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// commit brings two processes to the linger.
func commit(t testing.TB, hang time.Duration) (*session.Lingering, *session.Following) {
	t.Helper()
	a, b := wirePair(t, hang)
	o, n := newOldSide(t, session.Timeouts{Hang: hang}), newNewSide(t, hang)
	o.greet(a)
	if err := n.join(b); err != nil {
		t.Fatal(err)
	}
	n.s.Conns = func() []string { return []string{"x", "y"} }
	n.start()
	n.ready()
	tenure := n.end()
	res, _ := o.wantCommitted()
	if res.Lingering == nil || tenure.Following == nil {
		t.Fatalf("no linger: %+v, %+v", res, tenure)
	}
	return res.Lingering, tenure.Following
}

// run runs f and returns a channel that is closed at its end.
func run(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

func within(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not end", what)
	}
}

// TestMove moves many connections at once, which their state tells apart. The sender's copy is not needed any more.
func TestMove(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	type arrived struct {
		name  string
		state string
		fd    int
	}
	const count = 600
	got := make(chan arrived, count)
	f.Deliver = func(name string, state []byte, fd int) bool {
		got <- arrived{name, string(state), fd}
		return true
	}
	lingering, following := run(l.Run), run(func() {
		if bye, clean := f.Run(); !clean || bye.Moved != count {
			t.Errorf("Following.Run() = %+v, %t, want a Bye", bye, clean)
		}
	})
	peers := make([]*witness, count)
	var moves sync.WaitGroup
	for i := range count {
		peers[i] = newWitness(t)
		fd := peers[i].dup()
		moves.Go(func() {
			if err := l.Move(context.Background(), "x", fmt.Append(nil, i), fd); err != nil {
				t.Errorf("Move() = %v", err)
			}
		})
	}
	moves.Wait()
	for i, p := range peers { // the sender lets go
		closeAll(t, p.fds)
		p.fds = nil
		p.c.Close()
		if _, err := p.seen.Write([]byte{byte(i)}); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for range count {
		a := <-got
		var i int
		if _, err := fmt.Sscan(a.state, &i); err != nil || a.name != "x" {
			t.Fatalf("arrived: %+v", a)
		}
		var b [1]byte
		if n, err := unix.Read(a.fd, b[:]); n != 1 || err != nil || b[0] != byte(i) {
			t.Errorf("connection %d reads %d, %v", i, b[0], err)
		}
		closeAll(t, []int{a.fd})
		peers[i].gone() // the peer sees the end when the receiver closes
	}
	l.Bye(wire.Bye{Moved: count})
	within(t, lingering, "Lingering.Run")
	within(t, following, "Following.Run")
}

// TestMoveSome has the successor take only some connections.
func TestMoveSome(t *testing.T) {
	t.Parallel()
	for _, takes := range []int{0, 1, 100} {
		t.Run(fmt.Sprint(takes), func(t *testing.T) {
			t.Parallel()
			l, f := commit(t, 10*time.Second)
			w := newWitness(t)
			taken := 0
			f.Deliver = func(_ string, _ []byte, fd int) bool {
				_ = fdx.Close(fd) // either way
				taken++
				return taken <= takes
			}
			following := run(func() { f.Run() })
			const count = 300
			var mu sync.Mutex
			moved, kept := 0, 0
			var moves sync.WaitGroup
			for range count {
				fd := w.dup()
				moves.Go(func() {
					err := l.Move(context.Background(), "y", nil, fd)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						moved++
					case errors.Is(err, session.ErrNotTaken):
						kept++
					default:
						t.Errorf("Move() = %v", err)
					}
				})
			}
			lingering := run(l.Run)
			moves.Wait()
			if moved != takes || kept != count-takes {
				t.Errorf("%d moved and %d kept, want %d and %d", moved, kept, takes, count-takes)
			}
			l.Bye(wire.Bye{})
			within(t, lingering, "Lingering.Run")
			within(t, following, "Following.Run")
			w.gone()
		})
	}
}

func TestMoveRefused(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	w := newWitness(t)
	f.Deliver = func(_ string, state []byte, fd int) bool {
		_ = fdx.Close(fd) // counted
		return bytes.Count(state, []byte{1}) == wire.MaxConnState
	}
	lingering, following := run(l.Run), run(func() { f.Run() })
	ctx, cancel := context.WithCancel(context.Background())
	if err := l.Move(ctx, "z", nil, w.dup()); !errors.Is(err, session.ErrNoTaker) {
		t.Errorf("Move() under an unknown name = %v, want ErrNoTaker", err)
	}
	// What is too large for the successor must not end the conversation.
	if err := l.Move(ctx, "x", make([]byte, wire.MaxConnState+1), w.dup()); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("Move() with too much state = %v, want ErrTooLarge", err)
	}
	var moves sync.WaitGroup
	for range 60 { // more than fits into a frame
		fd := w.dup()
		moves.Go(func() {
			if err := l.Move(ctx, "x", bytes.Repeat([]byte{1}, wire.MaxConnState), fd); err != nil {
				t.Errorf("Move() with the most state = %v", err)
			}
		})
	}
	moves.Wait()
	l.Bye(wire.Bye{})
	within(t, lingering, "Lingering.Run")
	within(t, following, "Following.Run")
	cancel()
	if err := l.Move(ctx, "x", nil, w.dup()); err == nil {
		t.Error("Move() = nil after Bye")
	}
	w.gone()
}

// TestMoveCanceled ends the context of a move that has not begun.
func TestMoveCanceled(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Move(ctx, "x", nil, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("Move() = %v, want context.Canceled", err)
	}
	f.Stop()
	f.Run()
	l.Run()
}

// TestFollowerDies kills the successor between giving a connection to its
// program and acknowledging it: no connection is served by both, and what the
// program was not about to have stays with the caller.
func TestFollowerDies(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	w := newWitness(t)
	delivered := map[string]bool{}
	f.Deliver = func(_ string, state []byte, fd int) bool {
		_ = fdx.Close(fd) // counted
		delivered[string(state)] = true
		if len(delivered) == 5 {
			_ = f.Link().Close() // before the acknowledgement
		}
		return true
	}
	following := run(func() {
		if _, clean := f.Run(); clean {
			t.Error("Following.Run() had a Bye that was never sent")
		}
	})
	const count = 60
	errs := moveAll(l, w, count)
	lingering := run(l.Run)
	within(t, following, "Following.Run")
	doubts, lost := 0, 0
	for range count {
		m := <-errs
		switch {
		case m.err == nil, errors.Is(m.err, failure.InDoubt):
			if m.err != nil {
				doubts++
			}
			if !delivered[m.state] {
				if lost++; m.err == nil {
					t.Errorf("connection %s: Move() = nil, and neither process has it", m.state)
				}
			}
		case errors.Is(m.err, session.ErrGone), errors.Is(m.err, session.ErrNotTaken):
			if delivered[m.state] {
				t.Errorf("connection %s: Move() = %v, and the successor's program has it", m.state, m.err)
			}
		default:
			t.Errorf("connection %s: Move() = %v", m.state, m.err)
		}
	}
	// It takes 16 at once.
	if len(delivered) < 5 || len(delivered) > 4+16 || doubts == 0 || lost >= 16 {
		t.Errorf("%d connections delivered, %d in doubt, %d of them not delivered", len(delivered), doubts, lost)
	}
	within(t, lingering, "Lingering.Run")
	w.gone()
}

// moving is what became of a connection.
type moving struct {
	state string
	err   error
}

// moveAll moves count connections at once.
func moveAll(l *session.Lingering, w *witness, count int) <-chan moving {
	errs := make(chan moving, count)
	for i := range count {
		fd, state := w.dup(), fmt.Sprint(i)
		go func() { // ends with the linger
			errs <- moving{state, l.Move(context.Background(), "x", []byte(state), fd)}
		}()
	}
	return errs
}

// TestSilentTeller has a successor of an older version, which does not tell what
// it is about to take, hang up: all that it may have taken is in doubt.
func TestSilentTeller(t *testing.T) {
	t.Parallel()
	for _, tells := range []bool{false, true} {
		t.Run(fmt.Sprintf("tells=%t", tells), func(t *testing.T) {
			t.Parallel()
			a, b := wirePair(t, 10*time.Second)
			o := newOldSide(t, session.Timeouts{Hang: 10 * time.Second})
			o.start(a)
			s := script{t, b}
			s.warm()
			s.say(&wire.Ready{Conns: []string{"x"}, Tells: tells})
			receive[*wire.Paused](s)
			s.confirm()
			res, _ := o.wantCommitted()
			w := newWitness(t)
			errs := moveAll(res.Lingering, w, 1)
			lingering := run(res.Lingering.Run)
			receive[*wire.Conns](s)
			// Of another message, and of no entry.
			s.say(&wire.Taking{Seq: 9}, &wire.Taking{Seq: 1, Index: 1 << 31})
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			var want error = failure.InDoubt
			if tells {
				want = session.ErrGone
			}
			if m := <-errs; !errors.Is(m.err, want) {
				t.Errorf("Move() = %v, want %v", m.err, want)
			}
			within(t, lingering, "Lingering.Run")
			w.gone()
		})
	}
}

// TestStopDelivers stops following while the program is about to take a
// connection: the predecessor learns whether it was taken.
func TestStopDelivers(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	w := newWitness(t)
	delivering, stopped := make(chan struct{}), make(chan struct{})
	f.Deliver = func(_ string, _ []byte, fd int) bool {
		close(delivering)
		<-stopped
		_ = fdx.Close(fd) // counted
		return false
	}
	following := run(func() { f.Run() })
	errs := moveAll(l, w, 1)
	lingering := run(l.Run)
	<-delivering
	stopping := run(f.Stop)
	select {
	case <-stopping:
		t.Error("Stop() did not wait")
	case <-time.After(50 * time.Millisecond): // it waits, or will
	}
	close(stopped)
	within(t, stopping, "Following.Stop")
	if m := <-errs; !errors.Is(m.err, session.ErrNotTaken) {
		t.Errorf("Move() = %v, want ErrNotTaken", m.err)
	}
	within(t, following, "Following.Run")
	within(t, lingering, "Lingering.Run")
	w.gone()
}

// TestFollowHostile has a predecessor send what does not fit together.
func TestFollowHostile(t *testing.T) {
	t.Parallel()
	a, b := wirePair(t, 10*time.Second)
	w := newWitness(t)
	f := session.Follow(a, wire.Adopt{Version: 1, Generation: 4, PID: 9, Build: "b"})
	if p := f.Predecessor(); p.Generation != 4 || p.PID != 9 || p.Build != "b" {
		t.Errorf("Predecessor() = %+v", p)
	}
	f.Deliver = func(string, []byte, int) bool { t.Error("Deliver was called"); return false }
	f.Adopt = func(wire.Adopt, int) bool { t.Error("Adopt was called"); return false }
	f.Told = func(wire.Linger) {}
	accounts := 0
	f.Account = func(wire.Account) { accounts++ }
	for _, m := range []wire.Message{
		&wire.Account{},
		&wire.Conns{Seq: 1, Entries: make([]wire.Conn, 3)},
		&wire.Conns{Seq: 2},
		&wire.Adopt{Seq: 3},
		&wire.Linger{},
		&wire.Commit{},
		&wire.Bye{},
	} {
		if err := b.Send(m, []int{w.dup(), w.dup()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, clean := f.Run(); !clean {
		t.Error("Following.Run() had no Bye")
	}
	if accounts != 1 {
		t.Errorf("Account was called %d times, want once", accounts)
	}
	s := script{t, b}
	for seq := range uint32(3) {
		if m := receive[*wire.Ack](s); m.Seq != seq+1 || m.Taken != 0 {
			t.Errorf("Ack = %+v, want nothing taken of %d", m, seq+1)
		}
	}
	b.Close()
	w.gone()
}

// TestReleased passes on the pidfds of the processes that still have duplicates. A
// successor that does not get all of them must not take the sockets for its own.
func TestReleased(t *testing.T) {
	t.Parallel()
	l, f := commit(t, 10*time.Second)
	w := newWitness(t)
	f.Told = func(wire.Linger) {}
	type released struct {
		kind    wire.SocketKind
		holders int
	}
	var got []released
	f.Released = func(kind wire.SocketKind, holders []int) {
		got = append(got, released{kind, len(holders)})
		closeAll(t, holders)
	}
	lingering, following := run(l.Run), run(func() { f.Run() })
	l.Released(wire.KindListener, nil)
	l.Released(wire.KindPacket, []int{w.dup(), w.dup()})
	l.Tell(wire.Linger{})
	l.Bye(wire.Bye{})
	within(t, lingering, "Lingering.Run")
	within(t, following, "Following.Run")
	if want := []released{{wire.KindListener, 0}, {wire.KindPacket, 2}}; !slices.Equal(got, want) {
		t.Errorf("released: %v, want %v", got, want)
	}
	w.gone()
}

// TestReleasedShort announces a holder of which no pidfd comes.
func TestReleasedShort(t *testing.T) {
	t.Parallel()
	a, b := wirePair(t, 10*time.Second)
	f := session.Follow(b, wire.Adopt{Version: wire.MaxVersion, Generation: 1})
	f.Released = func(wire.SocketKind, []int) { t.Error("the sockets were released without a word of who else has them") }
	following := run(func() { f.Run() })
	s := script{t, a}
	s.say(&wire.Released{Kind: wire.KindListener, Holders: 1}, &wire.Bye{})
	within(t, following, "Following.Run")
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
