package sockets_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// bind adds a new socket to a table.
func bind(t *testing.T, table *sockets.Table, k sockets.Key, origin *sockets.Origin) *sockets.Socket {
	t.Helper()
	h, err := sockets.Bind(t.Context(), k, &net.ListenConfig{}, func(error) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	s, err := sockets.New(k, h, &net.ListenConfig{}, origin)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Add(s, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestKeep has a process accept again, and pause, in an upgrade whose commit is in doubt:
// what the successor leaves out is served all the time.
func TestKeep(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	s := sockets.NewTestSocket(t, "tcp", "127.0.0.1:0")
	if err := table.Add(s, nil); err != nil {
		t.Fatal(err)
	}
	table.Open()
	table.Keep([]wire.Socket{s.Entry})
	table.Pause()
	table.Open()
	table.Pause()
	c, err := net.Dial("tcp", s.Entry.Bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := len(table.Kept()); n != 1 {
		t.Fatalf("%d sockets are kept, want 1", n)
	}
	served, err := s.Listener.Accept(nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = served.Close()
	if table.Keep(nil); len(table.Kept()) != 0 {
		t.Error("the socket is kept after the upgrade")
	}
}

// TestPaths closes unix sockets in each state of their process: the path is removed by
// the one that serves, or by the one that has bound it before it serves.
func TestPaths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		arrived bool // the socket came from a predecessor
		before  func(*sockets.Table, *sockets.Socket)
		removed bool
		keeps   bool
	}{
		{"bound here", false, func(*sockets.Table, *sockets.Socket) {}, true, false},
		{"came, not served", true, func(*sockets.Table, *sockets.Socket) {}, false, false},
		{"came, served", true, func(table *sockets.Table, _ *sockets.Socket) { table.Own() }, true, false},
		{"a successor serves", false, func(table *sockets.Table, _ *sockets.Socket) {
			table.Own()
			_ = table.Release()
		}, false, false},
		{"stored, the process ends", false, func(table *sockets.Table, s *sockets.Socket) {
			table.Own()
			table.Ending.Store(true)
			s.SetStored("name")
		}, false, true},
		{"stored, closed by its user", false, func(table *sockets.Table, s *sockets.Socket) {
			table.Own()
			s.SetStored("name")
		}, true, false},
		{"another socket has the path", false, func(_ *sockets.Table, s *sockets.Socket) {
			_ = os.Remove(s.Entry.Bound)
			_ = os.WriteFile(s.Entry.Bound, nil, 0o600)
		}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := sockets.NewTable()
			path := filepath.Join(testenv.ShortDir(t), "s")
			k := sockets.Key{Kind: wire.KindPacket, Network: "unixgram", Address: path} // Release does not close it
			s := bind(t, table, k, nil)
			if tt.arrived {
				table = sockets.NewTable()
				fd, ok := s.Hold()
				if !ok {
					t.Fatal("closed")
				}
				entry := s.Entry
				h, err := sockets.Descriptor(dup(t, fd)).Open(&entry)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = s.Release(), s.Release() // those of the predecessor
				if s, err = sockets.New(k, h, nil, &sockets.Origin{Entry: &entry}); err != nil {
					t.Fatal(err)
				}
				if err := table.Add(s, nil); err != nil {
					t.Fatal(err)
				}
			}
			tt.before(table, s)
			if err := table.Drop(s); err != nil {
				t.Errorf("Drop() = %v", err)
			}
			if err := table.Drop(s); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Drop() again = %v, want net.ErrClosed", err)
			}
			if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) != tt.removed {
				t.Errorf("path: %v, want removed: %t", err, tt.removed)
			}
			if got := table.KeepsPath(); got != tt.keeps {
				t.Errorf("KeepsPath() = %t, want %t", got, tt.keeps)
			}
			if err := table.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
		})
	}
}

// TestStalePath binds where a killed process has left a path, and not where a process
// serves.
func TestStalePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	k := sockets.Key{Kind: wire.KindListener, Network: "unix", Address: path}
	asked := 0
	room := func(error) bool { asked++; return false }
	if _, err := sockets.Bind(t.Context(), k, &net.ListenConfig{}, room); err == nil {
		t.Error("Bind() has taken the path of a socket that is served")
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	h, err := sockets.Bind(t.Context(), k, &net.ListenConfig{}, room)
	if err != nil {
		t.Fatalf("Bind() on a stale path: %v", err)
	}
	_ = h.Close()
	if asked != 2 {
		t.Errorf("makeRoom was called %d times, want once for each Bind", asked)
	}
}

// TestShardNumbers gives each of several sockets with one key its own number.
func TestShardNumbers(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	k := sockets.Key{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:0"}
	other := wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: "localhost:0", Shard: 7}
	same := wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:0", Shard: 5}
	for i, tt := range []struct {
		origin *sockets.Origin
		want   uint32
	}{
		{nil, 0},
		{&sockets.Origin{}, 1},
		{&sockets.Origin{Entry: &other}, 2}, // 7 is that of another key
		{&sockets.Origin{Entry: &same}, 5},
		{nil, 6},
	} {
		if got := bind(t, table, k, tt.origin).Entry.Shard; got != tt.want {
			t.Errorf("socket %d: number %d, want %d", i, got, tt.want)
		}
	}
}

// TestAddClosed adds a socket to a table that is closed.
func TestAddClosed(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	k := sockets.Key{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:0"}
	h, err := sockets.Bind(t.Context(), k, &net.ListenConfig{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sockets.New(k, h, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Add(s, nil); !errors.Is(err, failure.Closed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Add() = %v, want failure.Closed", err)
	}
	if _, ok := s.Hold(); ok {
		t.Error("the socket is open")
	}
}

// TestHeldDescriptor closes a socket whose descriptor is being passed on: it stays open
// until the last Release.
func TestHeldDescriptor(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	s := bind(t, table, sockets.Key{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:0"}, nil)
	if _, ok := s.Hold(); !ok {
		t.Fatal("Hold() = false")
	}
	if err := table.Drop(s); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Entry.Bound)
	if err != nil {
		t.Fatalf("the descriptor is held, and closed: %v", err)
	}
	_ = c.Close()
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", s.Entry.Bound); err == nil {
		_ = c.Close()
		t.Error("the descriptor is open after the last Release")
	}
	if len(table.All()) != 0 {
		t.Error("a closed socket is in the table")
	}
}

// TestLoads counts connections that no process has accepted yet.
func TestLoads(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	for _, k := range []sockets.Key{
		{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:0"},
		{Kind: wire.KindListener, Network: "unix", Address: filepath.Join(testenv.ShortDir(t), "s")},
		{Kind: wire.KindPacket, Network: "udp", Address: "127.0.0.1:0"},
	} {
		s := bind(t, table, k, nil)
		for range 3 {
			if k.Kind == wire.KindListener {
				c, err := (&net.Dialer{}).DialContext(context.Background(), k.Network, s.Entry.Bound)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
		}
	}
	for i, l := range table.Loads() {
		queue, halfOpen := 3, sockets.Unknown
		switch i {
		case 0:
			halfOpen = 0
		case 2:
			queue = sockets.Unknown
		}
		if l.Queue != queue || l.HalfOpen != halfOpen {
			t.Errorf("%s: queue %d, half open %d, want %d and %d", l.Socket.Entry.Network, l.Queue, l.HalfOpen, queue, halfOpen)
		}
	}
	if queue, halfOpen := table.Backlog(); queue != 6 || halfOpen != 0 {
		t.Errorf("Backlog() = %d, %d, want 6 and 0", queue, halfOpen)
	}
}
