package handoff_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestChangedSockets upgrades to versions that ask for other sockets.
func TestChangedSockets(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		old, kept, added := filepath.Join(s.set.Dir, "old"), filepath.Join(s.set.Dir, "kept"), filepath.Join(s.set.Dir, "added")
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "tcp localhost:0", "unix " + old, "unix " + kept, "udp 127.0.0.1:0"}
		s.start()
		addrs := s.wait("addrs").Addrs
		l := newLoad(t, s.set.Dir, map[string]string{"3 unix " + kept: kept, "0 tcp 127.0.0.1:0": addrs["0 tcp 127.0.0.1:0"]})
		l.run(5)
		s.plan(plan{
			At: "probation", How: "hold",
			Sockets: []string{"tcp 127.0.0.1:0", "unix " + kept, "unix " + added, "tcp " + addrs["1 tcp localhost:0"]},
		})
		s.signal(syscall.SIGUSR2)
		s.wait("paused")
		s.wait("waits")
		// Until commit nothing is gone: the predecessor may need it again.
		if _, err := os.Lstat(old); err != nil {
			t.Errorf("unix socket that the successor does not ask for, before commit: %v", err)
		}
		s.let()
		s.wait("committed")
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
		if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("unix socket that the successor does not ask for, after commit: %v, want none", err)
		}
		if gen, err := ask("unix", added); err != nil || gen != 2 {
			t.Errorf("added socket: generation %d, %v, want 2", gen, err)
		}
		// Requested by the address that it got.
		if gen, err := ask("tcp", addrs["1 tcp localhost:0"]); err != nil || gen != 2 {
			t.Errorf("socket by its bound address: generation %d, %v, want 2", gen, err)
		}
		l.run(20)
		l.stop()
		if pc, err := net.ListenPacket("udp", addrs["4 udp 127.0.0.1:0"]); err != nil {
			t.Errorf("UDP socket that was not requested is not closed: %v", err)
		} else {
			_ = pc.Close()
		}
		// And back: what was dropped is bound anew.
		s.upgrade()
		if gen, err := ask("unix", old); err != nil || gen != 3 {
			t.Errorf("dropped socket of the first version: generation %d, %v, want 3", gen, err)
		}
		s.stop()
	})
}

// TestNamedSocket upgrades a service to a version that has another address for a
// name: the socket is kept, with its address, and by the version after that too.
func TestNamedSocket(t *testing.T) {
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: mode, Sockets: []string{"api=tcp 127.0.0.1:0"}})
			s.start()
			addr := s.wait("addrs").Addrs["0 api=tcp 127.0.0.1:0"]
			for i, sockets := range [][]string{{"api=tcp 127.0.0.2:0"}, {"api=tcp " + addr}, nil} {
				s.plan(plan{Sockets: sockets})
				s.upgrade()
				want := uint64(i + 2)
				s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == want-1 })
				if gen, err := ask("tcp", addr); err != nil || gen != want {
					t.Errorf("the named socket: generation %d, %v, want %d", gen, err, want)
				}
			}
			s.stop()
		})
	}
}

// TestShards upgrades a service with several sockets on one address: each keeps
// its queue.
func TestShards(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		port := freePort(t)
		addr := fmt.Sprintf("127.66.8.%d:%s", len(mode), port) // another in each mode
		s := newService(t, settings{Mode: mode, Reuseport: true, Sockets: []string{"tcp " + addr, "tcp " + addr, "tcp " + addr}})
		s.start()
		l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr, "1 tcp": addr, "2 tcp": addr})
		for i := range 3 {
			l.run(30)
			before := listeners(t, addr)
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
			if mode == handoff.Drain {
				eventually(t, "three other sockets listen", func() bool {
					after := listeners(t, addr)
					return len(after) == 3 && !slices.ContainsFunc(after, func(n string) bool { return slices.Contains(before, n) })
				})
				continue
			}
			if after := listeners(t, addr); len(before) != 3 || strings.Join(before, " ") != strings.Join(after, " ") {
				t.Errorf("listening sockets before the upgrade: %v, after: %v, want the same three", before, after)
			}
		}
		l.run(30)
		l.stop()
		if got := l.last.Load(); got != 4 {
			t.Errorf("generation that answers: %d, want 4", got)
		}
		s.stop()
	})
}

// TestListenAgain upgrades a service that listens twice on each of its addresses: that is
// one socket, which the successor gets.
func TestListenAgain(t *testing.T) {
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} { // in Drain each Listen binds a socket
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			addr := fmt.Sprintf("127.66.9.%d:%s", len(mode), freePort(t))
			path := filepath.Join(testenv.ShortDir(t), "u")
			s := newService(t, settings{Mode: mode, Sockets: []string{"tcp " + addr, "tcp " + addr, "unix " + path, "unix " + path}})
			s.start()
			l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr, "2 unix": path})
			for i := range 2 {
				l.run(30)
				s.upgrade()
				s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
				if n := len(listeners(t, addr)); n != 1 {
					t.Errorf("%d sockets listen, want 1", n)
				}
			}
			l.run(30)
			l.stop()
			if got := l.last.Load(); got != 3 {
				t.Errorf("generation that answers: %d, want 3", got)
			}
			s.stop()
		})
	}
}

// freePort returns a port that was free a moment ago.
func freePort(tb testing.TB) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// listeners returns the inodes of the sockets that listen on a loopback address.
func listeners(tb testing.TB, addr string) []string {
	tb.Helper()
	// The kernel's table is read in pieces, and may change between two of them.
	last := readListeners(tb, addr)
	for range 100 {
		now := readListeners(tb, addr)
		if slices.Equal(now, last) {
			return now
		}
		last = now
	}
	tb.Fatalf("the listening sockets at %s change all the time: %v", addr, last)
	return nil
}

func readListeners(tb testing.TB, addr string) []string {
	tb.Helper()
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		tb.Fatal(err)
	}
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		tb.Fatal(err)
	}
	defer table.Close()
	var inodes []string
	ip := a.IP.To4() // in the machine's byte order, proc(5)
	want := strings.ToUpper(fmt.Sprintf("%02x%02x%02x%02x:%s", ip[3], ip[2], ip[1], ip[0], hex16(a.Port)))
	lines := bufio.NewScanner(table)
	lines.Scan() // the head of the table
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != "0A" {
			break // listening sockets come first, and there may be many others
		}
		if f[1] == want {
			inodes = append(inodes, f[9])
		}
	}
	sortStrings(inodes)
	return inodes
}

// TestClosedForGood closes a listener in a running service. No client can connect any
// more, and the next version can bind the address again.
func TestClosedForGood(t *testing.T) {
	t.Parallel()
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, ControlSocket: testenv.ShortDir(t) + "/c/s", UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{}})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testenv.ShortDir(t), "u")
	for range 2 {
		ln, err := up.Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(ln.Close(), tcp.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("unix", path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("dial a closed unix listener: %v, want no such file", err)
		}
		// A process that another test forks has a copy until it has called exec.
		eventually(t, "a closed TCP listener refuses", func() bool {
			c, err := net.Dial("tcp", tcp.Addr().String())
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close() = %v, want net.ErrClosed", err)
		}
	}
}

// TestReopened has a successor close what it has got and bind the same anew: the next
// gets that.
func TestReopened(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}})
		s.startCommand(s.varied(variation{Reopen: true}))
		s.wait("owner")
		first := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		s.upgrade()
		second := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		if first == second {
			t.Errorf("both have %s", first)
		}
		mustAnswer(t, second, 2)
		s.wait("exit")
		s.upgrade()
		mustAnswer(t, second, 3)
		s.stop()
	})
}

// TestListenOtherKind asks Listen for datagrams and ListenPacket for a stream.
func TestListenOtherKind(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	_, stream := up.Listen(t.Context(), "udp", "127.0.0.1:0")
	_, packet := up.ListenPacket(t.Context(), "tcp", "127.0.0.1:0")
	for _, err := range []error{stream, packet} {
		if err == nil || !strings.Contains(err.Error(), "ListenPacket for datagrams") {
			t.Errorf("error: %v, want one that names the other function", err)
		}
	}
}

// TestStaleUnixSocket binds a path whose owner was killed.
func TestStaleUnixSocket(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unix", "unixpacket"} {
		path := filepath.Join(testenv.ShortDir(t), network)
		dead, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		live, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, ControlSocket: testenv.ShortDir(t) + "/c/s", UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := live.Listen(t.Context(), network, path); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen(%s) of a path in use = %v, want EADDRINUSE", network, err)
		}
		_ = dead.Close()
		// A process that another test forks has a copy until it has called exec.
		eventually(t, "the listener is closed", func() bool {
			c, err := net.Dial(network, path)
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		if _, err := live.Listen(t.Context(), network, path); err != nil {
			t.Errorf("Listen(%s) of a stale path = %v", network, err)
		}
		if err := live.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestKeptOptions checks that options live through an upgrade.
func TestKeptOptions(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for i, c := range []struct {
			name string
			set  settings
			want int // SO_PROTOCOL of the listener
		}{
			{"tcp, keep-alive 77 s", settings{KeepAlive: 77 * time.Second}, unix.IPPROTO_TCP},
			{"mptcp", settings{MPTCP: true}, unix.IPPROTO_MPTCP},
			{"tcp, no keep-alive", settings{KeepAlive: -1}, unix.IPPROTO_TCP},
		} {
			if mode == handoff.Drain && c.set.MPTCP {
				continue // a group of MPTCP listeners can't be steered
			}
			t.Run(c.name, func(t *testing.T) {
				if !turn(i, mode) {
					testenv.Long(t, "TestKeptOptions")
				}
				t.Parallel()
				set := c.set
				set.Mode, set.Sockets, set.Reuseport = mode, []string{"tcp 127.0.0.1:0"}, !set.MPTCP
				s := newService(t, set).start()
				addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
				for gen := uint64(1); gen <= 3; gen++ {
					con, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := askOver(con, "x"); err != nil || got != gen {
						t.Fatalf("generation %d, %v, want %d", got, err, gen)
					}
					idle, timer := keepAliveOf(t, con.LocalAddr().String(), addr)
					if c.set.KeepAlive > 0 && (!timer || idle > 77 || idle < 60) {
						t.Errorf("generation %d: keep-alive timer %t, %d s, want 77 s", gen, timer, idle)
					}
					if c.set.KeepAlive < 0 && timer {
						t.Errorf("generation %d: keep-alive is on", gen)
					}
					_ = con.Close()
					if got := protocolOf(t, s.pid(), addr); got != c.want {
						t.Errorf("generation %d: SO_PROTOCOL %d, want %d", gen, got, c.want)
					}
					if gen < 3 {
						s.upgrade()
						s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == gen })
					}
				}
				s.stop()
			})
		}
	})
}
