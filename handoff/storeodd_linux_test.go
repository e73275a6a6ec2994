package handoff_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestStoreNoRoom has a systemd that stores nothing, or too little: the event says
// so, nothing is left in the store, and no path at the end.
func TestStoreNoRoom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size int
		says string
		want string
		left int
	}{
		"nothing":          {0, "2", "the store is full", 0},
		"one of two":       {1, "2", "the store is full", 0},
		"no more than one": {1, "1", "FileDescriptorStoreMax=1 is too small", 1},
		"no number":        {2, "many", "", 0},
		"not asked for":    {2, "0", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeeper(t, c.size)
			k.says = c.says
			path := filepath.Join(testenv.ShortDir(t), "u")
			s := k.start(newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0", "unix " + path}}))
			s.wait("addrs")
			if c.want != "" {
				if m := stored(s); !strings.Contains(m.Err, c.want) || !slices.Contains(m.Is, "ErrNotStored") {
					t.Errorf("event of the store: %q %v, want %q and ErrNotStored", m.Err, m.Is, c.want)
				}
			}
			k.awaitSize(c.left)
			s.stop()
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("path of a socket that is not stored, at the end: %v, want none", err)
			}
		})
	}
}

// TestStoreFull fills the store to its last place, twice.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, 2)
	s := k.start(newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}))
	if m := stored(s); m.Err != "" {
		t.Errorf("two sockets for a store of two: %s", m.Err)
	}
	k.awaitSize(2)
	s.plan(plan{At: "probation", Sockets: []string{"tcp 127.0.0.1:0", "tcp 127.0.0.1:0"}})
	s.upgrade()
	if m := stored(s); m.Err != "" {
		t.Errorf("one for the other: %s", m.Err)
	}
	if names := k.awaitSize(2); slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "udp") }) {
		t.Errorf("in the store: %q", names)
	}
	s.stop()
}

// TestStoreChanged starts a service with other addresses after a stop: what it asks
// for is bound, and what it does not is out of the store.
func TestStoreChanged(t *testing.T) {
	handoffModes(t, func(t *testing.T, mode handoff.Mode) {
		k := newKeeper(t, 8)
		path := filepath.Join(testenv.ShortDir(t), "u")
		set := settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0", "api=tcp 127.0.0.1:0", "unix " + path, "tcp localhost:0"}}
		s := k.start(newService(t, set))
		addrs := s.wait("addrs").Addrs
		tcp, api := addrs["0 tcp 127.0.0.1:0"], addrs["1 api=tcp 127.0.0.1:0"]
		k.awaitSize(4)
		s.stop()
		_, port, err := net.SplitHostPort(tcp)
		if err != nil {
			t.Fatal(err)
		}
		s.set.Sockets = []string{"tcp :" + port, "api=tcp localhost:0", "unixpacket " + path, "tcp " + addrs["3 tcp localhost:0"]}
		s = k.again(s)
		now := s.wait("addrs").Addrs
		if got := now["0 tcp :"+port]; got != "[::]:"+port {
			t.Errorf("listens on %s, want [::]:%s", got, port)
		}
		if got := now["1 api=tcp localhost:0"]; got == api {
			t.Errorf("a name whose address has changed still listens on %s", got)
		}
		refuses(t, api)
		if got := now["3 tcp "+addrs["3 tcp localhost:0"]]; got != addrs["3 tcp localhost:0"] {
			t.Errorf("a socket that was asked for by its bound address listens on %s", got)
		}
		if gen, err := ask("unixpacket", path); err != nil || gen != 1 {
			t.Errorf("unixpacket: generation %d, %v", gen, err)
		}
		names := k.awaitSize(4)
		if !k.has("tcp|%3A"+port) || k.has("|unix|") || k.has("127.0.0.1%3A0|") || k.has("localhost%3A0|0||") {
			t.Errorf("in the store: %q", names)
		}
		s.stop()
	})
}

// TestStoreShards starts a service that asks twice for what two addresses were before.
func TestStoreShards(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, 8)
	s := k.start(newService(t, settings{Mode: handoff.Takeover, Reuseport: true, Sockets: []string{"tcp 127.0.0.1:0"}}))
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	k.awaitSize(1)
	s.stop()
	s.set.Sockets = []string{"tcp " + addr, "tcp " + strings.Replace(addr, "127.0.0.1", "localhost", 1)}
	s = k.again(s)
	k.awaitSize(2)
	s.stop()
	w := &waiting{tb: t}
	for range 16 {
		w.dial("tcp", addr)
	}
	s.set.Sockets = []string{"tcp " + addr, "tcp " + addr}
	s = k.again(s)
	w.served()
	eventually(t, "both are in the store, by names of their own", func() bool {
		names, _ := k.Stored()
		return len(names) == 2 && k.has("|0||") && k.has("|1||") && !k.has("localhost")
	})
	s.stop()
}

// TestStoreForeign has things in the store that no socket of ours is.
func TestStoreForeign(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, 8)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	u := &unit{tb: t}
	for _, name := range []string{"baton.1|listener|tcp|127.0.0.1%3A0|0||", "baton.1|nonsense", "baton.probe"} {
		u.add(name, udp.(*net.UDPConn), nil)
	}
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	k.Put(u.names, u.dups())
	k.start(s)
	if gen, err := ask("tcp", s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]); err != nil || gen != 1 {
		t.Errorf("generation %d, %v", gen, err)
	}
	k.awaitSize(1)
	s.stop()
}

// TestStoreDrain has a mode Drain store no member of a group, and take out what
// another mode has put in.
func TestStoreDrain(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, 8)
	path := filepath.Join(testenv.ShortDir(t), "u")
	s := k.start(newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0", "unix " + path}}))
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	k.awaitSize(2)
	s.stop()
	s.set.Mode, s.set.Sockets = handoff.Drain, []string{"tcp " + addr, "unix " + path}
	w := &waiting{tb: t}
	w.dial("unix", path)
	s = k.again(s)
	w.served()
	if gen, err := ask("tcp", addr); err != nil || gen != 1 {
		t.Errorf("generation %d, %v", gen, err)
	}
	k.awaitSize(1)
	// And by an upgrade.
	mode := handoff.Takeover
	s.plan(plan{At: "probation", Mode: &mode})
	s.upgrade()
	k.awaitSize(2)
	s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
	s.stop()
}

// TestStoreOutsider has a service taken over by another unit's process: the store of
// the first is empty then, and the other's has the sockets.
func TestStoreOutsider(t *testing.T) {
	t.Parallel()
	k, other := newKeeper(t, 8), newKeeper(t, 8)
	path := filepath.Join(testenv.ShortDir(t), "u")
	s := k.start(newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0", "unix " + path}}))
	names := k.awaitSize(2)
	second := other.again(s)
	if got := other.awaitSize(2); !slices.Equal(got, names) {
		t.Errorf("in the other's store: %q, want %q", got, names)
	}
	k.awaitSize(0)
	s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
	other.crash(second)
	w := &waiting{tb: t}
	w.dial("unix", path)
	second = other.again(second)
	w.served()
	second.stop()
}

// TestStoreClose takes a socket out of the store when it is closed, so that its
// address is free at once, and leaves it there when the process is about to end.
func TestStoreClose(t *testing.T) {
	k := newKeeper(t, 8)
	k.StartMain(8, os.Getpid)
	t.Setenv("NOTIFY_SOCKET", k.Path)
	t.Setenv("FDSTORE", "8")
	dir := testenv.ShortDir(t)
	up := newUpgrader(t, handoff.Config{})
	tcp, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := up.Listen(t.Context(), "unix", filepath.Join(dir, "u"))
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	k.awaitSize(2)
	awaitStatus := func() {
		t.Helper()
		eventually(t, "Status() says that all are stored", func() bool {
			return !slices.ContainsFunc(up.Status().Sockets, func(st handoff.SocketStatus) bool { return !st.Stored })
		})
	}
	awaitStatus()
	addr := tcp.Addr().String()
	if err := tcp.Close(); err != nil {
		t.Fatal(err)
	}
	// At once: systemd may not have read of it yet.
	if tcp, err = up.Listen(t.Context(), "tcp", addr); err != nil {
		t.Fatalf("Listen() on an address that was just closed: %v", err)
	}
	eventually(t, "the new socket is stored", func() bool {
		return k.has(strings.ReplaceAll(addr, ":", "%3A")) && !k.has("127.0.0.1%3A0")
	})
	awaitStatus()
	late, err := up.Listen(t.Context(), "unix", filepath.Join(dir, "late"))
	if err != nil {
		t.Fatal(err)
	}
	k.awaitSize(3)
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	k.awaitSize(2)
	if _, err := os.Lstat(filepath.Join(dir, "late")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("path of a socket that was closed: %v, want none", err)
	}
	// What a server closes of its own accord when it shuts down.
	client, err := net.Dial("unix", filepath.Join(dir, "u"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Shutdown(context.Background()) }()
	<-up.Done()
	if err := errors.Join(ln.Close(), conn.Close(), <-ended); err != nil {
		t.Fatal(err)
	}
	k.awaitSize(2)
	if c, err := net.Dial("unix", filepath.Join(dir, "u")); err != nil {
		t.Errorf("dial a socket that waits for the next process: %v", err)
	} else {
		_ = c.Close()
	}
	_ = tcp.Close() // it is closed already
}
