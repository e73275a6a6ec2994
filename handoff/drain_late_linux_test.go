package handoff_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// drainLine returns what makes the processes of a service in mode Drain, all of
// them in this one.
func drainLine(tb testing.TB) func() *handoff.Upgrader {
	cfg := handoff.Config{
		Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(tb), "c", "s"), Probation: time.Minute,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	}
	return func() *handoff.Upgrader {
		up, err := handoff.New(&cfg)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = up.Close() })
		return up
	}
}

// keepAccepting accepts all connections of ln and closes them. A probe stays known,
// with its descriptor, until a member accepts it (package reuseport).
func keepAccepting(ln net.Listener) {
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // it has said nothing
		}
	}()
}

// TestDrainLatePacket asks for one more UDP socket between Ready and commit: it is
// usable at once.
func TestDrainLatePacket(t *testing.T) {
	t.Parallel()
	generation := drainLine(t)
	first := generation()
	old, err := first.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Ready(); err != nil {
		t.Fatal(err)
	}
	second := generation()
	if _, err := second.ListenPacket(t.Context(), "udp4", old.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	if err := second.Ready(); err != nil {
		t.Fatal(err)
	}
	late, err := second.ListenPacket(t.Context(), "udp4", old.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if late.LocalAddr().String() != old.LocalAddr().String() {
		t.Errorf("late socket has %v, want %v", late.LocalAddr(), old.LocalAddr())
	}
	if _, err := late.WriteTo([]byte("x"), old.LocalAddr()); err != nil {
		t.Errorf("WriteTo() = %v", err)
	}
	if err := second.Abort(errors.New("enough")); err != nil {
		t.Error(err)
	}
}

// TestDrainNamed upgrades to a version that has another address for names: in
// mode Drain its sockets are there. Where the address is the same, in other words
// perhaps, they are on the old port.
func TestDrainNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, first string
		second      func(bound net.Addr) string
		host        string // that the second has
		kept        bool   // the port
	}{
		{"another", "127.0.0.1:0", func(net.Addr) string { return "127.66.8.10:0" }, "127.66.8.10", false},
		{"the same", "127.0.0.1:0", func(net.Addr) string { return "127.0.0.1:0" }, "127.0.0.1", true},
		{"the same in full", "127.0.0.1:0", net.Addr.String, "127.0.0.1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			generation := drainLine(t)
			open := func(up *handoff.Upgrader, tcp, udp string) (ln, pc net.Addr) {
				l, err := up.ListenNamed(t.Context(), "api", "tcp4", tcp)
				if err != nil {
					t.Fatal(err)
				}
				p, err := up.ListenPacketNamed(t.Context(), "api", "udp4", udp)
				if err != nil {
					t.Fatal(err)
				}
				keepAccepting(l)
				return l.Addr(), p.LocalAddr()
			}
			first := generation()
			ln, pc := open(first, c.first, c.first)
			if err := first.Ready(); err != nil {
				t.Fatal(err)
			}
			second := generation()
			nextLn, nextPC := open(second, c.second(ln), c.second(pc))
			for _, a := range [][2]net.Addr{{ln, nextLn}, {pc, nextPC}} {
				_, old, _ := net.SplitHostPort(a[0].String())
				host, port, err := net.SplitHostPort(a[1].String())
				if err != nil || host != c.host || c.kept && port != old {
					t.Errorf("%v became %v, want %s, the port kept: %t", a[0], a[1], c.host, c.kept)
				}
			}
			if err := second.Abort(errors.New("enough")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDrainNeverReady has a successor fail when its own sockets are bound: the
// predecessor has what it had, and can be upgraded.
func TestDrainNeverReady(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"kill": "ErrSuccessorDied", "abort": "ErrAborted"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
			addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			before, old := openFiles(t, s.pid()), listeners(t, addr)
			s.plan(plan{At: "listening", How: how})
			s.signal(syscall.SIGUSR2)
			if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, want) {
				t.Errorf("upgrade: %v %s, want %s", m.Is, m.Err, want)
			}
			eventually(t, "the predecessor's descriptors are as before", func() bool {
				return len(openFiles(t, s.pid())) <= len(before)
			})
			if now := listeners(t, addr); !slices.Equal(now, old) {
				t.Errorf("listening sockets: %v, want %v", now, old)
			}
			s.upgrade()
			s.moved(2, 2)
			s.stop()
		})
	}
}
