package handofftls

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// A fate says what becomes of a successor.
type fate uint8

const (
	serves      fate = iota // it takes the connection
	refuses                 // it does not take it
	diesBefore              // killed with the state in hand, not read
	diesAfter               // killed after Receive
	diesReading             // killed when it has read a request
	diesWriting             // killed when it has written an answer
	diesPartly              // killed when it has written a part of a record
	stopped                 // stopped before it uses the state, and continued when the predecessor has given it up
	fates
)

// A successor is a Sender whose process meets its fate.
type successor struct {
	fate fate
	cfg  *Config
	next *Conn
	err  error
	late func() // what a stopped process does when it continues
}

func (s *successor) SendConn(_ context.Context, _ string, conn net.Conn, state []byte) error {
	if s.fate == refuses {
		return handoff.ErrNotTaken
	}
	mc := handoff.MovedConn{Conn: conn, State: bytes.Clone(state)}
	if s.fate == diesBefore {
		return errors.Join(handoff.ErrInDoubt, conn.Close())
	}
	if s.fate == diesPartly {
		mc.Conn = &stutter{Conn: conn, between: func() error { return io.ErrShortWrite }}
	}
	if s.next, _, s.err = Receive(mc, s.cfg); s.err != nil {
		return s.err
	}
	use := func() {
		buf := make([]byte, 64)
		if s.fate == diesReading || s.fate == diesWriting {
			_, _ = s.next.Read(buf)
		}
		if s.fate != diesReading && s.fate != diesAfter {
			_, _ = s.next.Write([]byte("the successor's last words"))
		}
		_ = conn.Close() // as the kernel does
	}
	switch s.fate {
	case serves:
		return nil
	case stopped:
		s.late = use // its copy of the descriptor is open still
	default:
		use()
	}
	return handoff.ErrInDoubt
}

// TestNoNonceTwice moves connections thousands of times, to successors that are killed or
// stopped at each step, while the client sends without pause. A recorder at the client's
// socket has then seen no nonce twice.
func TestNoNonceTwice(t *testing.T) {
	t.Parallel()
	connections := testenv.Times(100, 1000)
	cfg := plain()
	var mu sync.Mutex
	moves, ends := 0, make(map[fate]int)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				n, end := recordMoves(t, cfg, rng)
				mu.Lock()
				moves, ends[end] = moves+n, ends[end]+1
				mu.Unlock()
			}
		})
	}
	for i := range connections {
		next <- i
	}
	close(next)
	wg.Wait()
	if len(ends) < int(fates)-2 || moves < 10*connections {
		t.Errorf("%d moves with ends %v: the test proves little", moves, ends)
	}
	t.Logf("%d moves of %d connections, by the fate of the last successor: %v", moves, connections, ends)
}

// recordMoves moves one connection until its end.
func recordMoves(t *testing.T, cfg *Config, rng *rand.Rand) (moves int, end fate) {
	p, c := establishPeer(t, cfg)
	r := record(p)
	defer p.raw.Close()
	for {
		for range rng.IntN(3) {
			both(t, p, c, "a request")
		}
		if c.layer != nil && rng.IntN(4) == 0 {
			p.keyUpdate(t, byte(rng.IntN(2)))
			both(t, p, c, "under another key")
		}
		f := serves
		if rng.IntN(20) == 0 {
			f = fate(rng.IntN(int(fates)))
		}
		if f == diesReading || f == diesWriting {
			p.send(t, typeData, []byte("a request in the kernel's queue"), 0)
		}
		s := &successor{fate: f, cfg: cfg}
		err := Send(context.Background(), s, "test", c, nil)
		switch {
		case err == nil:
			c, moves = s.next, moves+1
			continue
		case errors.Is(err, handoff.ErrNotTaken):
			continue
		case !errors.Is(err, handoff.ErrInDoubt):
			t.Error(err)
			return moves, f
		}
		// In doubt: whatever the predecessor's program still tries, the client gets none of
		// it.
		_, _ = c.Write([]byte(lastWords))
		_ = c.CloseWrite()
		if s.late != nil {
			s.late()
		}
		_ = c.Close()
		if err := r.drain(); err != nil {
			t.Errorf("a successor with fate %d: %v", f, err)
		}
		return moves, f
	}
}
