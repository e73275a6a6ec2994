package reuseport_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

func onCPU(t *testing.T, cpu int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &old) }() // was allowed before
	f()
}

func sockopt(t testing.TB, c syscall.Conn, level, opt int) (v int) {
	t.Helper()
	err := onFD(c, func(fd int) (err error) {
		v, err = unix.GetsockoptInt(fd, level, opt)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestListen(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			called := 0
			cfg := &reuseport.Config{Backlog: 17, KeepAlive: -1, Control: func(network, address string, c syscall.RawConn) error {
				called++
				return nil
			}}
			a, err := reuseport.Listen(ctx, f.network, f.listen, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			b, err := reuseport.Listen(ctx, f.network, a.Addr().String(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if called != 2 {
				t.Errorf("Config.Control was called %d times for 2 listeners", called)
			}
			if got := sockopt(t, a, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP {
				t.Errorf("protocol %d, want TCP and not MPTCP", got)
			}
			if _, backlog, err := reuseport.QueueLen(a); backlog != 17 || err != nil {
				t.Errorf("backlog = %d, %v, want 17", backlog, err)
			}
			go serveEcho(b)
			var accepted net.Conn
			waitFor(t, func() bool {
				if err := b.Group().Steer(ctx, reuseport.Hash()); err != nil {
					t.Fatal(err)
				}
				dial(t, "tcp", at(a, f.dial), 1)
				n, _, err := reuseport.QueueLen(a)
				return n > 0 || err != nil
			})
			if accepted, err = a.Accept(); err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if got := sockopt(t, accepted.(*net.TCPConn), unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != 0 {
				t.Errorf("SO_KEEPALIVE = %d with KeepAlive -1, want 0", got)
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	plain := listen(t, "tcp4", "127.66.34.1:0")
	if _, err := reuseport.Listen(ctx, "tcp4", plain.Addr().String(), nil); !errors.Is(err, reuseport.ErrForeign) || !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Listen on the address of a plain listener: %v, want ErrForeign and EADDRINUSE", err)
	}
	for _, network := range []string{"unix", "udp", ""} {
		if _, err := reuseport.Listen(ctx, network, "127.0.0.1:0", nil); err == nil {
			t.Errorf("Listen(%q) = nil, want an error", network)
		}
	}
	for _, cfg := range []reuseport.Config{{Members: -1}, {Backlog: -1}} {
		if _, err := reuseport.ListenGroup(ctx, "tcp4", "127.0.0.1:0", &cfg); err == nil {
			t.Errorf("ListenGroup with %+v = nil, want an error", cfg)
		}
	}
	stop := errors.New("stop")
	_, err := reuseport.Listen(ctx, "tcp4", "127.0.0.1:0", &reuseport.Config{
		Control: func(string, string, syscall.RawConn) error { return stop },
	})
	if !errors.Is(err, stop) {
		t.Errorf("Listen with a Control that fails: %v, want its error", err)
	}
}

// Sockets of another user can't be joined.
func TestListenOfOtherUser(t *testing.T) {
	testenv.Need(t, "netns")
	t.Parallel()
	ctx := testContext(t)
	ns := netlab.NewNamespace(t)
	ns.Do(func() {
		l, err := reuseport.Listen(ctx, "tcp4", "127.0.0.1:0", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		ns.DoAs(65534, func() {
			if _, err := reuseport.Listen(ctx, "tcp4", l.Addr().String(), nil); !errors.Is(err, reuseport.ErrForeign) {
				t.Errorf("Listen as another user: %v, want ErrForeign", err)
			}
		})
	})
}

// A hook of its own user finds SO_REUSEPORT set, and a listener made with it can
// be moved away from. One that is in no group can't.
func TestControlAndMove(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	set := false
	lc := net.ListenConfig{Control: reuseport.Control(func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT)
			set = v == 1 && err == nil
		})
	})}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp4", "127.66.34.2:0")
	if err != nil {
		t.Fatal(err)
	}
	if !set {
		t.Error("SO_REUSEPORT is not set when the user's hook is called")
	}
	old := ln.(*net.TCPListener)
	own := group(t, "tcp4", ln.Addr().String(), 1).Members()[0]
	go echoOf(old)
	conns := dial(t, "tcp", ln.Addr().String(), 20)
	o := newInherited(old, old.Close)
	r, err := reuseport.Move(ctx, []syscall.Conn{own}, []reuseport.Leaving{o.Leaving})
	if err != nil || r.LossPossible || r.Strategy != reuseport.StrategySteer || !o.closed.Load() {
		t.Errorf("Move: %+v, %v", r, err)
	}
	seen := make(tally)
	askAll(conns, seen)
	if seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
	plain := listen(t, "tcp4", "127.66.34.2:0")
	o = newInherited(plain, plain.Close)
	if r, err := reuseport.Move(ctx, []syscall.Conn{own}, []reuseport.Leaving{o.Leaving}); !errors.Is(err, reuseport.ErrForeign) || r.Members != 0 || o.closed.Load() {
		t.Errorf("Move of a plain listener: %+v, %v, want ErrForeign", r, err)
	}
}

// A member whose socket another process has a duplicate of stays in the group
// after a drain, and the report says so. (The duplicate is in this process here.)
func TestDrainOfDuplicatedMember(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.34.3:0", 2)
	l := g.Members()[0]
	fd, err := fdx.Dup(l)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := fdx.Listener(fd, "duplicate")
	if err != nil {
		t.Fatal(err)
	}
	dup := ln.(*net.TCPListener)
	go echoOf(dup)
	_, end := traffic(t, g.Addr().String(), 4)
	r, err := l.Drain(ctx)
	if err != nil || !strings.Contains(r.Reason, "duplicate") || r.LossPossible {
		t.Errorf("Drain: %+v, %v, want a reason that names the duplicate", r, err)
	}
	o := newInherited(dup, dup.Close)
	if r, err := reuseport.Move(ctx, []syscall.Conn{g.Members()[0]}, []reuseport.Leaving{o.Leaving}); err != nil || r.LossPossible || r.Reason != "" {
		t.Errorf("Move of the duplicate: %+v, %v", r, err)
	}
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
}

// The merged listener hands out the connections of all members, those added
// later included, and each of them once, while members leave.
func TestMergedListener(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g, err := reuseport.ListenGroup(ctx, "tcp4", "127.66.34.4:0", &reuseport.Config{Members: 3})
	if err != nil {
		t.Fatal(err)
	}
	ln := g.Listener()
	if g.Listener() != ln {
		t.Error("a second Listener is another one")
	}
	var served atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { // ends with ln
			for {
				c, err := ln.Accept()
				if err != nil {
					if !isClosed(err) {
						t.Errorf("Accept: %v, want ErrClosed", err)
					}
					return
				}
				served.Add(1)
				go func() { // ends with the client
					defer c.Close()
					answer(c)
				}()
			}
		})
	}
	count, end := traffic(t, ln.Addr().String(), 6)
	for range 5 {
		if _, err := g.Add(ctx); err != nil {
			t.Fatal(err)
		}
		if r, err := g.Members()[0].Drain(ctx); err != nil || r.LossPossible {
			t.Errorf("Drain: %+v, %v", r, err)
		}
	}
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
	if got, want := served.Load(), count.Load(); got != want {
		t.Errorf("handed out %d connections of %d", got, want)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// A group whose members have all left takes new ones, and so does its merged
// listener.
func TestMergedListenerAgain(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g, err := reuseport.ListenGroup(ctx, "tcp4", "127.66.34.7:0", &reuseport.Config{Members: 2})
	if err != nil {
		t.Fatal(err)
	}
	ln := g.Listener()
	for range 2 {
		if _, err := g.Remove(ctx, g.Members()...); err != nil {
			t.Fatal(err)
		}
		if c, err := ln.Accept(); !isClosed(err) {
			t.Fatalf("Accept without members: %v, %v, want ErrClosed", c, err)
		}
		if _, err := g.Add(ctx); err != nil {
			t.Fatal(err)
		}
		dial(t, "tcp", g.Addr().String(), 1)
		c, err := ln.Accept()
		if err != nil {
			t.Fatalf("Accept from a new member: %v", err)
		}
		_ = c.Close() // that it came is all
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if c, err := ln.Accept(); !isClosed(err) {
		t.Errorf("Accept after Close: %v, %v, want ErrClosed", c, err)
	}
}

// All members of a process may leave at once, each on its own.
func TestDrainAllAtOnce(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	stay := group(t, "tcp4", "127.66.34.5:0", 1)
	g := group(t, "tcp4", stay.Addr().String(), 4)
	_, end := traffic(t, stay.Addr().String(), 6)
	var wg sync.WaitGroup
	for _, l := range g.Members() {
		wg.Go(func() { // ends with the drain
			if r, err := l.Drain(ctx); err != nil || r.LossPossible {
				t.Errorf("Drain: %+v, %v", r, err)
			}
		})
	}
	wg.Wait()
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
}

// The member that had all the traffic leaves: those that were kept from it get it
// again.
func TestDrainOfTheOnlyTarget(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.34.10:0", 2)
	idle, busy := g.Members()[0], g.Members()[1]
	if err := g.Steer(ctx, reuseport.Away(idle)); err != nil {
		t.Fatal(err)
	}
	_, end := traffic(t, g.Addr().String(), 4)
	if r, err := busy.Drain(ctx); err != nil || r.LossPossible {
		t.Errorf("Drain: %+v, %v", r, err)
	}
	if seen := end(); seen.lost() > 0 {
		t.Errorf("lost %v, want none", seen)
	}
	if s := g.Steering().String(); s != reuseport.Hash().String() {
		t.Errorf("the steering is %s after that, want %v", s, reuseport.Hash())
	}
}

// A deadline while another process has its turn: nothing was tried, and the
// report says so.
func TestDrainWaitsForTurn(t *testing.T) {
	t.Parallel()
	g := group(t, "tcp4", "127.66.34.6:0", 2)
	other := group(t, "tcp4", g.Addr().String(), 1)
	if err := g.Steer(testContext(t), reuseport.Away(g.Members()[0])); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r, err := other.Members()[0].Drain(ctx)
	if !isIncomplete(err) || !r.LossPossible || r.Members != 1 || r.Queued == 0 || !strings.Contains(r.Reason, "turn") {
		t.Errorf("Drain while another has the turn: %+v, %v, want ErrIncomplete and a reason", r, err)
	}
}
