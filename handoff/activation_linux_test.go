package handoff_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// unit is systemd's part: sockets that it has bound, by name.
type unit struct {
	tb    testing.TB
	names []string
	conns []syscall.Conn
}

func (u *unit) add(name string, c syscall.Conn, err error) {
	u.tb.Helper()
	if err != nil {
		u.tb.Fatal(err)
	}
	u.names, u.conns = append(u.names, name), append(u.conns, c)
}

// dups returns copies of the sockets, which the caller closes.
func (u *unit) dups() []int {
	u.tb.Helper()
	var fds []int
	for _, c := range u.conns {
		fd, err := fdx.Dup(c)
		if err != nil {
			u.tb.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

// start starts a process of a service with the sockets, as systemd does.
func (u *unit) start(s *service) {
	u.tb.Helper()
	cmd := s.command()
	fds := u.dups()
	defer fdx.Close(fds...)
	fakesystemd.Pass(u.tb, cmd, u.names, fds)
	s.startCommand(cmd)
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // the process has its own
	}
}

// TestActivation has sockets come from systemd, outlive an upgrade, a crash and
// the end of the service, with what waits in them.
func TestActivation(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			u := &unit{tb: t}
			byName, err := net.Listen("tcp", "127.0.0.1:0")
			u.add("web", byName.(*net.TCPListener), err)
			byAddress, err := net.Listen("tcp", "127.0.0.1:0")
			u.add("api.socket", byAddress.(*net.TCPListener), err)
			udp, err := net.ListenPacket("udp", "127.0.0.1:0")
			u.add("api.socket", udp.(*net.UDPConn), err)
			unused, err := net.Listen("tcp", "127.0.0.1:0")
			u.add("unused", unused.(*net.TCPListener), err)
			for _, c := range []interface{ Close() error }{byName, byAddress, udp, unused} {
				defer c.Close()
			}
			named, api := "web=tcp 127.0.0.1:1", "tcp "+byAddress.Addr().String()
			set := settings{Mode: mode, Sockets: []string{named, api, "udp " + udp.LocalAddr().String()}}
			path := filepath.Join(testenv.ShortDir(t), "u")
			if mode == handoff.Takeover {
				ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
				u.add("local", ln, err)
				ln.SetUnlinkOnClose(false)
				defer ln.Close()
				set.Sockets = append(set.Sockets, "unix "+path)
			}
			s := newService(t, set)

			// A client that connects before the service starts.
			early, err := net.Dial("tcp", byName.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer early.Close()
			u.start(s)
			s.wait("owner")
			addrs := s.wait("addrs").Addrs
			if addrs["0 "+named] != byName.Addr().String() || addrs["1 "+api] != byAddress.Addr().String() {
				t.Errorf("addresses %v, want %s and %s", addrs, byName.Addr(), byAddress.Addr())
			}
			if gen, err := askOver(early, "early"); err != nil || gen != 1 {
				t.Errorf("a connection from before the start: generation %d, %v", gen, err)
			}
			_ = early.Close()
			everywhere := func(want uint64) {
				t.Helper()
				for network, address := range map[string]string{"tcp": byName.Addr().String(), "tcp4": byAddress.Addr().String(), "udp": udp.LocalAddr().String(), "unix": path} {
					if network == "unix" && mode != handoff.Takeover {
						continue
					}
					if gen, err := ask(network, address); err != nil || gen != want {
						t.Errorf("%s %s: generation %d, %v, want %d", network, address, gen, err, want)
					}
				}
			}
			everywhere(1)
			report := s.upgrade().Report
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
			everywhere(2)
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", report.Successor.PID))
			if err != nil || strings.Contains(string(env), "LISTEN_") {
				t.Errorf("the successor's environment has LISTEN_*, %v", err)
			}

			// A crash: systemd starts it again, and it serves a client that has connected meanwhile.
			s.line.Kill()
			s.gone(report.Successor.PID)
			closed(t, controlOf(s))
			crash, err := net.Dial("tcp", byAddress.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer crash.Close()
			again := newService(t, s.set)
			u.start(again)
			again.wait("owner")
			if gen, err := askOver(crash, "crash"); err != nil || gen != 1 {
				t.Errorf("a connection from between crash and restart: generation %d, %v", gen, err)
			}
			_ = crash.Close()
			everywhere(1)
			again.stop()
			// The sockets are systemd's still.
			late, err := net.Dial("tcp", byName.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = late.Close()
			if _, err := os.Lstat(path); mode == handoff.Takeover && err != nil {
				t.Errorf("the path of systemd's unix socket: %v", err)
			}
		})
	}
}

// closed waits until no process has the unix socket at path: a process that was
// killed closes its descriptors a moment after it has ended for all others.
func closed(tb testing.TB, path string) {
	tb.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c, err := net.Dial("unix", path)
		if err != nil {
			return
		}
		_ = c.Close()
		<-time.After(time.Millisecond) // no event tells of it
	}
	tb.Fatalf("a process still has %s", path)
}

// TestActivationRefused has modes that can't hand systemd's sockets on.
func TestActivationRefused(t *testing.T) {
	t.Parallel()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(testenv.ShortDir(t), "u"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	conn, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, c := range map[string]struct {
		mode handoff.Mode
		conn syscall.Conn
		want error
	}{
		"drain":         {handoff.Drain, tcp.(*net.TCPListener), handoff.ErrUnsupported},
		"inherit, path": {handoff.Inherit, ln, handoff.ErrUnsupported},
		"a connection":  {handoff.Takeover, conn.(*net.TCPConn), errors.New("any")},
	} {
		u := &unit{tb: t}
		u.add("x", c.conn, nil)
		s := newService(t, settings{Mode: c.mode, Sockets: []string{"tcp 127.0.0.1:0"}})
		u.start(s)
		m := s.wait("new")
		is := strings.Join(m.Is, " ")
		if (c.want == handoff.ErrUnsupported) != strings.Contains(is, "ErrUnsupported") || !strings.Contains(m.Err, `sockets of systemd: socket "x"`) {
			t.Errorf("%s: New() = %s (%s), want %v", name, m.Err, is, c.want)
		}
	}
}
