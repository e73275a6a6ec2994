package sockets_test

import (
	"net"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// replaced returns a listener that has replaced another one on its address.
func replaced(t *testing.T, table *sockets.Table, before func(*sockets.Socket)) *sockets.Socket {
	t.Helper()
	lc := &net.ListenConfig{Control: reuseport.Control(nil)}
	k := sockets.Key{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:0"}
	h, err := sockets.Bind(t.Context(), k, lc, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sockets.New(k, h, lc, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Add(s, nil); err != nil {
		t.Fatal(err)
	}
	table.Open()
	before(s)
	k.Address = s.Entry.Bound
	if h, err = sockets.Bind(t.Context(), k, lc, nil); err != nil {
		t.Fatal(err)
	}
	if err := table.Replace(s, h); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestReplace has one Accept return the connections of both sockets: those that waited
// in the old one, and those that the kernel gives to either afterwards.
func TestReplace(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	dial := func(s *sockets.Socket, n int) {
		for range n {
			c, err := net.Dial("tcp", s.Entry.Bound)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}
	s := replaced(t, table, func(s *sockets.Socket) { dial(s, 5) })
	dial(s, 20)
	accept := func(n int) {
		t.Helper()
		if err := s.Listener.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			c, err := s.Listener.Accept(nil)
			if err != nil {
				t.Fatalf("connection %d of %d: %v", i, n, err)
			}
			_ = c.Close()
		}
	}
	accept(25)
	all := table.Leaving()
	if len(all) != 1 || !all[0].Entry.Leaving || all[0].Handle() == s.Handle() {
		t.Fatalf("%d sockets leave, want the one that was replaced", len(all))
	}
	if err := table.Leave(all[0]); err != nil {
		t.Fatal(err)
	}
	dial(s, 5)
	accept(5)
	if n := s.Listener.Accepted(); n != 30 {
		t.Errorf("Accepted() = %d, want 30", n)
	}
}

// TestCloseReplaced closes a socket that has replaced another one: that is closed, too,
// as no socket of the process is left on the address.
func TestCloseReplaced(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	s := replaced(t, table, func(*sockets.Socket) {})
	if err := table.Drop(s); err != nil {
		t.Fatal(err)
	}
	if n := len(table.Leaving()); n != 0 {
		t.Errorf("%d sockets leave", n)
	}
	if c, err := net.Dial("tcp", s.Entry.Bound); err == nil {
		_ = c.Close()
		t.Error("the old socket is open")
	}
}
