package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// A socket that Move may close, as a process has it that has inherited it: the
// first owner has closed its duplicate.
type inherited struct {
	reuseport.Leaving
	closed atomic.Bool
}

func newInherited(conn syscall.Conn, closeConn func() error) *inherited {
	o := new(inherited)
	o.Leaving = reuseport.Leaving{Conn: conn, Close: func() error {
		if o.closed.Swap(true) {
			return errors.New("closed twice")
		}
		return closeConn()
	}}
	return o
}

// plainListener is one that package net has made, of a SO_REUSEPORT group.
func plainListener(t testing.TB, network, address string, opts ...func(fd int) error) *net.TCPListener {
	t.Helper()
	return listen(t, network, address, append(opts, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})...)
}

// echoOf serves ln as a program does that accepts by itself.
func echoOf(ln *net.TCPListener) { countEcho(ln, new(atomic.Int64)) }

func countEcho(ln *net.TCPListener, served *atomic.Int64) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		served.Add(1)
		go func() { // ends with the client
			defer c.Close()
			answer(c)
		}()
	}
}

// Old listeners leave under load, and no connection is lost. (TestNaiveWaysLose
// is the control.)
func TestMove(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			own := plainListener(t, f.network, f.listen)
			go echoOf(own)
			_, end := traffic(t, at(own, f.dial), 6)
			for range 3 {
				var old []*inherited
				var leaving []reuseport.Leaving
				for range 3 {
					ln := plainListener(t, f.network, own.Addr().String())
					go echoOf(ln)
					o := newInherited(ln, ln.Close)
					old, leaving = append(old, o), append(leaving, o.Leaving)
				}
				r, err := reuseport.Move(ctx, []syscall.Conn{own}, leaving)
				if err != nil || r.Strategy != reuseport.StrategySteer || r.LossPossible || r.Members != len(old) || r.Left != 0 {
					t.Errorf("Move = %+v, %v", r, err)
				}
				for _, o := range old {
					if !o.closed.Load() {
						t.Error("an old listener is open")
					}
				}
			}
			if seen := end(); seen.lost() > 0 {
				t.Errorf("lost %v, want none", seen)
			}
		})
	}
}

// Two of three services on one address move at once, over and over.
func TestMoveBesideMoves(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	first := plainListener(t, "tcp4", "127.66.40.2:0")
	go echoOf(first)
	address := first.Addr().String()
	_, end := traffic(t, address, 6)
	var movers sync.WaitGroup
	for range 2 {
		old := plainListener(t, "tcp4", address)
		go echoOf(old)
		movers.Go(func() { // ends after its moves
			for range 10 {
				own := plainListener(t, "tcp4", address)
				go echoOf(own)
				o := newInherited(old, old.Close)
				r, err := reuseport.Move(ctx, []syscall.Conn{own}, []reuseport.Leaving{o.Leaving})
				if err != nil || r.Strategy != reuseport.StrategySteer || r.LossPossible || !o.closed.Load() {
					t.Errorf("Move = %+v, %v", r, err)
				}
				old = own
			}
		})
	}
	movers.Wait()
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
}

// A client that does not end its handshake holds one old listener up, and
// nothing else: the others leave, other processes get the group lock, and when the
// time is up the group is as before.
func TestMoveOfSilentClient(t *testing.T) {
	t.Parallel()
	own := plainListener(t, "tcp4", "127.66.40.1:0")
	go echoOf(own)
	address := own.Addr().String()
	held := plainListener(t, "tcp4", address, deferAccept)
	var served atomic.Int64
	go countEcho(held, &served)
	// Half of the clients come to it, and wait with what they have to say.
	silent := dial(t, "tcp4", address, 16)
	free := plainListener(t, "tcp4", address)
	go echoOf(free)
	old := []*inherited{newInherited(held, held.Close), newInherited(free, free.Close)}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	moved := make(chan error, 1)
	var r reuseport.Report
	go func() { // ends with ctx
		var err error
		r, err = reuseport.MoveInTurns(ctx, []syscall.Conn{own}, []reuseport.Leaving{old[0].Leaving, old[1].Leaving}, 300*time.Millisecond)
		moved <- err
	}()
	_, end := traffic(t, address, 4)
	for range 3 {
		l := listenOn(t, address)
		go serveEcho(l)
		if r, err := l.Drain(testContext(t)); err != nil || r.LossPossible || r.Strategy != reuseport.StrategySteer {
			t.Errorf("Drain of a neighbour: %+v, %v", r, err)
		}
	}
	waitFor(t, old[1].closed.Load)
	cancel()
	if err := <-moved; !errors.Is(err, reuseport.ErrIncomplete) || !errors.Is(err, context.Canceled) || r.Members != 1 || r.Left == 0 || r.LossPossible {
		t.Errorf("Move = %+v, %v, want ErrIncomplete, one member gone and something left", r, err)
	}
	if old[0].closed.Load() {
		t.Error("the old listener is closed before it is quiet")
	}
	for _, nc := range silent {
		if err := ask(nc); err != nil {
			t.Errorf("a client that has waited: %v", err)
		}
	}
	from := served.Load()
	waitFor(t, func() bool { return served.Load() > from }) // it gets its share again
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
	if r, err := reuseport.Move(testContext(t), []syscall.Conn{own}, []reuseport.Leaving{old[0].Leaving}); err != nil || !old[0].closed.Load() || r.LossPossible {
		t.Errorf("second Move = %+v, %v", r, err)
	}
}

// A listener is given up under load, with handshakes under way: another one, on a wider
// address of the same port, gets the new connections, and none is lost. Without another
// one the kernel refuses them.
func TestMoveWithoutOwn(t *testing.T) {
	t.Parallel()
	share := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
	for _, mptcp := range []bool{false, true} {
		t.Run(fmt.Sprintf("mptcp %t", mptcp), func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
				cerr := c.Control(func(fd uintptr) { err = deferAccept(int(fd)) })
				return errors.Join(cerr, err)
			}}
			lc.SetMultipathTCP(mptcp)
			opened, err := lc.Listen(ctx, "tcp4", "127.66.41.1:0")
			if err != nil {
				t.Fatal(err)
			}
			old := opened.(*net.TCPListener)
			defer old.Close()
			go echoOf(old)
			if err := fdx.Borrow(old, share); err != nil {
				t.Fatal(err)
			}
			wider := plainListener(t, "tcp4", at(old, "0.0.0.0"))
			go echoOf(wider)
			address := old.Addr().String()
			_, end := traffic(t, address, 6)
			silent := dial(t, "tcp4", address, 16)
			var r reuseport.Report
			moved := make(chan error, 1)
			go func() { // ends with ctx
				var err error
				r, err = reuseport.Move(ctx, nil, []reuseport.Leaving{{Conn: old, Close: old.Close}})
				moved <- err
			}()
			for _, c := range silent {
				if err := ask(c); err != nil {
					t.Errorf("a client whose handshake was under way: %v", err)
				}
			}
			if err := <-moved; err != nil || r.Strategy != reuseport.StrategyHide || r.LossPossible || r.Left != 0 || r.Members != 1 {
				t.Errorf("Move = %+v, %v", r, err)
			}
			if seen := end(); seen.lost() > 0 {
				t.Errorf("lost %v, want none", seen)
			}
			if _, err := reuseport.Move(ctx, nil, []reuseport.Leaving{{Conn: wider, Close: wider.Close}}); err != nil {
				t.Error(err)
			}
			if c, err := net.Dial("tcp4", address); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("dial an address that was given up: %v, %v, want ECONNREFUSED", c, err)
			}
		})
	}
}
