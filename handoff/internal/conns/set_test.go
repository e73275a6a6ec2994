package conns_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/conns"
)

// pair returns both ends of a connection of a network.
func pair(tb testing.TB, network string) (server, client net.Conn) {
	tb.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(tb.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial(network, ln.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	if server, err = ln.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	return server, client
}

func idle(s *conns.Set) bool {
	select {
	case <-s.Idle():
		return true
	default:
		return false
	}
}

// TestMethods looks for each method of the connections of package net in the
// wrapper: without ReadFrom and WriteTo there is no sendfile(2) and no splice(2).
func TestMethods(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		c, _ := pair(t, network)
		tracked := conns.NewSet().Track(c)
		have := reflect.TypeOf(tracked)
		want := reflect.TypeOf(c)
		for i := range want.NumMethod() {
			if name := want.Method(i).Name; !hasMethod(have, name) {
				t.Errorf("%s: %v has no method %s", network, have, name)
			}
		}
		if got := tracked.(interface{ NetConn() net.Conn }).NetConn(); got != c {
			t.Errorf("%s: NetConn() = %v, want %v", network, got, c)
		}
	}
}

func hasMethod(t reflect.Type, name string) bool {
	_, ok := t.MethodByName(name)
	return ok
}

// TestTrack tracks connections until they are closed, in any order.
func TestTrack(t *testing.T) {
	t.Parallel()
	s := conns.NewSet()
	if !idle(s) {
		t.Error("an empty set is not idle")
	}
	var all []net.Conn
	for _, network := range []string{"tcp", "unix", "tcp"} {
		c, _ := pair(t, network)
		all = append(all, s.Track(c))
	}
	in, out := net.Pipe()
	t.Cleanup(func() { _ = out.Close() })
	all = append(all, s.Track(in))
	for n := len(all); n > 0; n-- {
		if got := s.Open(); got != uint64(n) || idle(s) {
			t.Errorf("%d connections are open, idle: %t; want %d", got, idle(s), n)
		}
		c := all[n/2] // not the first, not the last
		all = append(all[:n/2], all[n/2+1:]...)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if got := s.Open(); got != 0 || !idle(s) {
		t.Errorf("%d connections are open in the end", got)
	}
	// A connection of another set is tracked by both.
	other := conns.NewSet()
	c, _ := pair(t, "tcp")
	both := other.Track(s.Track(c))
	if a, b := s.Open(), other.Open(); a != 1 || b != 1 || other.Track(both) != both {
		t.Errorf("%d and %d connections are open, want 1 in each set", a, b)
	}
	if err := both.Close(); err != nil || !idle(s) || !idle(other) {
		t.Errorf("Close() = %v, idle: %t and %t, want both", err, idle(s), idle(other))
	}
}

func TestNoDescriptor(t *testing.T) {
	t.Parallel()
	in, out := net.Pipe()
	t.Cleanup(func() { _ = out.Close() })
	c := conns.NewSet().Track(in)
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.(syscall.Conn).SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SyscallConn() of a pipe: %v, want ErrUnsupported", err)
	}
}

// TestCut closes what is tracked, and leaves what is held.
func TestCut(t *testing.T) {
	t.Parallel()
	s := conns.NewSet()
	c, client := pair(t, "tcp")
	s.Track(c)
	h := s.Hold(func() int { return 2 })
	s.Moved()
	s.InDoubt()
	if n := s.Cut(); n != 1 {
		t.Errorf("Cut() = %d, want 1", n)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a client of a connection that was cut reads: %v", err)
	}
	if idle(s) {
		t.Error("the set is idle while a hold is there")
	}
	h.Release(map[string]uint64{"slow": 3})
	h.Release(map[string]uint64{"slow": 3})
	want := conns.Counts{Moved: 1, Cut: 5, CutBy: map[string]uint64{"tracked": 1, "in doubt": 1, "slow": 3}}
	if diff := cmp.Diff(want, s.Counts()); diff != "" || !idle(s) {
		t.Errorf("idle: %t; counts (-want +got):\n%s", idle(s), diff)
	}
}

// wrapped is a connection of a protocol on top of another, such as *tls.Conn.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// TestUntrack gives a connection to a server that counts it itself.
func TestUntrack(t *testing.T) {
	t.Parallel()
	s := conns.NewSet()
	c, _ := pair(t, "tcp")
	tracked := s.Track(c)
	conns.Untrack(wrapped{tracked})
	conns.Untrack(tracked)
	conns.Untrack(c)
	if got := s.Open(); got != 0 || !idle(s) {
		t.Errorf("%d connections are open, want 0", got)
	}
	if err := tracked.Close(); err != nil {
		t.Error(err)
	}
}

// slow is a connection whose Close waits until all of them are in it.
type slow struct {
	net.Conn
	closing *sync.WaitGroup
}

func (s slow) Close() error {
	s.closing.Done()
	s.closing.Wait()
	return s.Conn.Close()
}

// TestCutSlow cuts connections whose Close waits, as that of TLS does for a peer that
// does not read: they wait at the same time.
func TestCutSlow(t *testing.T) {
	t.Parallel()
	s := conns.NewSet()
	closing := new(sync.WaitGroup)
	for range 3 {
		c, _ := pair(t, "tcp")
		closing.Add(1)
		s.Track(slow{c, closing})
	}
	cut := make(chan int, 1)
	go func() { cut <- s.Cut() }()
	select {
	case n := <-cut:
		if n != 3 || !idle(s) {
			t.Errorf("Cut() = %d, want 3; idle: %t", n, idle(s))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Cut() closes one connection after the other")
	}
}

// TestAllocations tracks for one allocation a connection.
func TestAllocations(t *testing.T) {
	s := conns.NewSet()
	c, _ := pair(t, "tcp")
	s.Track(c) // a set that gets its first connection makes a channel
	if n := testing.AllocsPerRun(100, func() { conns.Untrack(s.Track(c)) }); n > 1 {
		t.Errorf("Track takes %v allocations, want 1", n)
	}
}
