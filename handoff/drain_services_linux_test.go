package handoff_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// TestDrainSlowStart has successors hang and die before they are ready: they
// never get a connection, and none is lost.
func TestDrainSlowStart(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	addrs := s.wait("addrs").Addrs
	addr := addrs[drainSocket]
	old := listeners(t, addr)
	l := newLoad(t, s.set.Dir, addrs)
	for range testenv.Times(1, 3) {
		s.plan(plan{At: "listening", How: "hang"})
		s.signal(syscall.SIGUSR2)
		m := s.wait("hangs")
		l.run(200)
		if got := listeners(t, addr); !slices.Equal(got, old) {
			t.Errorf("listening sockets before ready: %v, want %v", got, old)
		}
		if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.wait("upgrade-failed")
		l.run(50)
	}
	l.stop()
	if got := l.last.Load(); got != 1 {
		t.Errorf("generation %d has answered, want 1 alone", got)
	}
	s.stop()
}

// TestDrainInstances upgrades independent services on one port, one after
// another, while each serves.
func TestDrainInstances(t *testing.T) {
	t.Parallel()
	tcp, udp := "127.66.8.5:"+freePort(t), "127.66.8.5:"+freePort(t)
	const instances = 3
	var all []*service
	for range instances {
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp " + tcp, "udp " + udp}, Probation: 50 * time.Millisecond, Greet: true})
		all = append(all, s.start())
	}
	g := newGreeted(t, tcp, 2)
	for round := range testenv.Times(1, 2) {
		for i, s := range all {
			before := listeners(t, tcp)
			g.run(100)
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(round+1) })
			eventually(t, fmt.Sprintf("instance %d has replaced its socket", i), func() bool {
				now := listeners(t, tcp)
				kept := slices.DeleteFunc(slices.Clone(now), func(n string) bool { return !slices.Contains(before, n) })
				return len(now) == instances && len(kept) == instances-1
			})
		}
	}
	g.run(100)
	g.stop()
	t.Logf("%d connections, %d failed", g.asked.Load(), g.lost.Load()+g.accepted.Load())
	if got := g.lost.Load() + g.accepted.Load(); got > 0 {
		t.Errorf("%d connections failed", got)
	}
	// Each of them still gets its share.
	for i, s := range all {
		eventually(t, fmt.Sprintf("instance %d gets connections", i), func() bool {
			pid, err := greeting(tcp)
			if err != nil {
				t.Error(err)
			}
			return pid == s.pid()
		})
	}
	for _, s := range all {
		s.stop()
	}
}

// TestDrainForeign joins services whose sockets can't be joined.
func TestDrainForeign(t *testing.T) {
	t.Parallel()
	t.Run("not reuseport", func(t *testing.T) {
		t.Parallel()
		for _, network := range []string{"tcp", "udp"} {
			s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{network + " 127.0.0.1:0"}}).start()
			drain := handoff.Drain
			s.plan(plan{Mode: &drain})
			s.signal(syscall.SIGUSR2)
			m := s.wait("upgrade-failed")
			if !strings.Contains(m.Err, "SO_REUSEPORT") && !strings.Contains(m.Err, "MPTCP") {
				t.Errorf("upgrade: %s, want a word about SO_REUSEPORT", m.Err)
			}
			if m := s.waitFor("listen", func(m message) bool { return m.Kind == "listen" }); !slices.Contains(m.Is, "ErrUnsupported") {
				t.Errorf("Listen of the successor: %v %s, want ErrUnsupported", m.Is, m.Err)
			}
			if gen, err := ask(network, s.addr(network)); err != nil || gen != 1 {
				t.Errorf("after that: generation %d, %v, want 1", gen, err)
			}
			s.stop()
		}
	})
	t.Run("another user's sockets", func(t *testing.T) {
		t.Parallel()
		testenv.Need(t, "root")
		up, err := handoff.New(&handoff.Config{Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"), UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{}})
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		tcp, udp := socketsOf(t, 65534)
		if ln, err := up.Listen(t.Context(), "tcp", tcp); !errors.Is(err, handoff.ErrUnsupported) || !errors.Is(err, reuseport.ErrForeign) || !strings.Contains(err.Error(), ": address already in use: ") {
			t.Errorf("Listen(%s) = %v, %v, want ErrUnsupported and ErrForeign, and the address in use", tcp, ln, err)
		}
		if pc, err := up.ListenPacket(t.Context(), "udp", udp); !errors.Is(err, handoff.ErrUnsupported) || !errors.Is(err, reuseport.ErrForeign) {
			t.Errorf("ListenPacket(%s) = %v, %v, want ErrUnsupported and ErrForeign", udp, pc, err)
		}
	})
	t.Run("another user", func(t *testing.T) {
		t.Parallel()
		testenv.Need(t, "root")
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}})
		s.startCommand(s.commandAs(otherUID))
		s.wait("owner")
		// Neither its folder nor its user is a reason to refuse the service.
		owner := func(uid int) {
			if err := os.Chown(filepath.Dir(controlOf(s)), uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		owner(0)
		o := newService(t, s.set)
		o.startCommand(o.varied(variation{Allow: []int{otherUID}}))
		if m := o.wait("listen"); !slices.Contains(m.Is, "ErrUnsupported") || !strings.Contains(m.Err, "belong to another user") {
			t.Errorf("Listen() as another user: %v %s, want ErrUnsupported", m.Is, m.Err)
		}
		owner(otherUID) // so that the service can remove the socket
		if gen, err := ask("tcp", s.addr("tcp")); err != nil || gen != 1 {
			t.Errorf("after that: generation %d, %v, want 1", gen, err)
		}
		s.stop()
	})
}

// socketsOf makes sockets that others could join, were they the user with this
// uid.
func socketsOf(tb testing.TB, uid int) (tcp, udp string) {
	tb.Helper()
	lc := net.ListenConfig{Control: reuseport.Control(nil)}
	lc.SetMultipathTCP(false)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(uid); err != nil { // of this thread
		tb.Fatal(err)
	}
	ln, lerr := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	pc, perr := lc.ListenPacket(tb.Context(), "udp", "127.0.0.1:0")
	err := errors.Join(lerr, perr, unix.Setfsuid(os.Geteuid()))
	if ln != nil {
		tb.Cleanup(func() { _ = ln.Close() })
	}
	if pc != nil {
		tb.Cleanup(func() { _ = pc.Close() })
	}
	if err != nil {
		tb.Fatal(err)
	}
	return ln.Addr().String(), pc.LocalAddr().String()
}

// addr returns the address of the service's only socket.
func (s *service) addr(network string) string {
	s.tb.Helper()
	for _, m := range s.received() {
		if a, ok := m.Addrs["0 "+network+" 127.0.0.1:0"]; ok {
			return a
		}
	}
	s.tb.Fatalf("no address of %s", network)
	return ""
}
