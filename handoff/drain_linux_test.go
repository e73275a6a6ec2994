package handoff_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// deferAccept makes a Control hook that sets TCP_DEFER_ACCEPT, tcp(7).
func deferAccept(next func(string, string, syscall.RawConn) error) func(string, string, syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		if next != nil {
			if err := next(network, address, c); err != nil {
				return err
			}
		}
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		var serr error
		err := c.Control(func(fd uintptr) {
			serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60)
		})
		return errors.Join(err, serr)
	}
}

// dialMany opens n connections.
func dialMany(tb testing.TB, addr string, n int) []net.Conn {
	tb.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = c.Close() })
		conns[i] = c
	}
	return conns
}

// answered asks over each connection and returns how many answers came from
// each generation; one that fails fails the test.
func answered(tb testing.TB, what string, conns []net.Conn) map[uint64]int {
	tb.Helper()
	gens := make(map[uint64]int)
	lost := 0
	for i, c := range conns {
		gen, err := askOver(c, fmt.Sprintf("%d", i))
		if err != nil {
			lost++
			tb.Logf("%s connection %d: %v", what, i, err)
			continue
		}
		gens[gen]++
	}
	if lost > 0 {
		tb.Errorf("%d of %d %s connections are lost", lost, len(conns), what)
	}
	return gens
}

// drained waits until only the sockets of one process listen.
func (s *service) drained(addr string, n int, old []string) {
	s.tb.Helper()
	eventually(s.tb, fmt.Sprintf("%d sockets listen, none of %v", n, old), func() bool {
		now := listeners(s.tb, addr)
		return len(now) == n && !slices.ContainsFunc(now, func(i string) bool { return slices.Contains(old, i) })
	})
}

// moved waits until generation gen has moved to sockets of its own on n addresses. It
// fails the test unless that went without a loss.
func (s *service) moved(gen uint64, n int) {
	s.tb.Helper()
	for range n {
		m := s.waitFor("moved", func(m message) bool { return m.Kind == "moved" && m.Generation == gen })
		if g := m.Group; m.Err != "" || g.Report.Strategy != reuseport.StrategySteer || g.Report.LossPossible {
			s.tb.Errorf("moved: %+v, error %q, want one steered without loss\nlog:\n%s", g, m.Err, s.log())
		}
	}
}

// halfOpen makes the variants of a test: with connections that wait in the
// queue, and with handshakes that are not over when the process dies.
func halfOpen(t *testing.T, f func(*testing.T, bool)) {
	t.Helper()
	t.Parallel()
	for _, deferred := range []bool{false, true} {
		name := "queued"
		if deferred {
			name = "half-open"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, deferred)
		})
	}
}

const drainSocket = "0 tcp 127.0.0.1:0"

// TestDrainPredecessorKilled kills a predecessor whose queue is full. The successor
// serves the queued connections.
func TestDrainPredecessorKilled(t *testing.T) {
	halfOpen(t, func(t *testing.T, deferred bool) {
		for _, at := range []string{"joined", "listening", "probation"} {
			t.Run(at, func(t *testing.T) {
				t.Parallel()
				s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Defer: deferred}).start()
				addr := s.wait("addrs").Addrs[drainSocket]
				pid, old := s.pid(), listeners(t, addr)
				var conns []net.Conn
				if deferred {
					conns = dialMany(t, addr, 20)
				}
				s.plan(plan{At: at, How: "wait"})
				s.signal(syscall.SIGUSR2)
				s.wait("waits")
				stopProcess(t, pid)
				// In probation new connections reach the successor.
				conns = append(conns, dialMany(t, addr, 20)...)
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				s.let()
				s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != pid })
				if got := answered(t, "waiting", conns); got[2] != len(conns) {
					t.Errorf("generations that answered: %v, want %d of 2", got, len(conns))
				}
				s.drained(addr, 1, old)
				s.upgradeNext(addr)
			})
		}
	})
}

// TestDrainProbes has sockets leave in favour of a listener, which takes connections
// of this process to itself: Accept returns none of them.
func TestDrainProbes(t *testing.T) {
	t.Parallel()
	lc := &net.ListenConfig{Control: reuseport.Control(nil)}
	lc.SetMultipathTCP(false)
	up := newUpgrader(t, handoff.Config{ListenConfig: lc})
	ln, err := up.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan string, 100)
	go func() { // ends with ln
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c.RemoteAddr().String()
			_ = c.Close() // nothing was said
		}
	}()
	for range 20 {
		old, err := reuseport.Listen(t.Context(), "tcp4", ln.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		keepAccepting(old)
		r, err := reuseport.Move(t.Context(), []syscall.Conn{ln}, []reuseport.Leaving{{Conn: old, Close: old.Close}})
		if err != nil || r.Strategy != reuseport.StrategySteer {
			t.Fatalf("Move() = %+v, %v", r, err)
		}
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for addr := range accepted {
		t.Errorf("Accept has returned a connection from %s, and no client has made one", addr)
	}
	if n := ln.Accepted(); n != 0 {
		t.Errorf("%d connections accepted, want none", n)
	}
}

// TestDrainPredecessorHangs stops a predecessor before its successor is ready. The
// successor takes over, and the predecessor yields when it resumes.
func TestDrainPredecessorHangs(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute}).start()
	addr := s.wait("addrs").Addrs[drainSocket]
	pid, old := s.pid(), listeners(t, addr)
	s.plan(plan{At: "listening", How: "wait"})
	s.signal(syscall.SIGUSR2)
	s.wait("waits")
	stopProcess(t, pid)
	s.let()
	s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != pid })
	conns := dialMany(t, addr, 20)
	if got := answered(t, "while the predecessor is stopped", conns); got[2] != len(conns) {
		t.Errorf("generations that answered: %v, want %d of 2", got, len(conns))
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.drained(addr, 1, old)
	s.upgradeNext(addr)
}

// upgradeNext shows that the remaining process can be upgraded.
func (s *service) upgradeNext(addr string) {
	s.tb.Helper()
	_ = os.Remove(filepath.Join(s.set.Dir, "go"))
	old := listeners(s.tb, addr)
	before, err := ask("tcp", addr)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.signal(syscall.SIGUSR2)
	s.waitFor("paused", func(m message) bool { return m.Kind == "paused" && m.Generation == before })
	eventually(s.tb, "the next generation answers", func() bool {
		gen, err := ask("tcp", addr)
		if err != nil {
			s.tb.Errorf("while the next upgrade runs: %v", err)
		}
		return gen == before+1
	})
	if now := listeners(s.tb, addr); !slices.Equal(now, old) {
		s.tb.Errorf("in probation %v listen, want the same as before: %v", now, old)
	}
}

// TestDrainSuccessorKilled kills a successor in probation whose queue is full.
func TestDrainSuccessorKilled(t *testing.T) {
	halfOpen(t, func(t *testing.T, deferred bool) {
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Defer: deferred}).start()
		addr := s.wait("addrs").Addrs[drainSocket]
		old := listeners(t, addr)
		s.signal(syscall.SIGUSR2)
		s.wait("paused")
		next := s.waitFor("ready", func(m message) bool { return m.Kind == "ready" && m.Generation == 2 }).PID
		s.alone(addr, 2)
		var conns []net.Conn
		if deferred {
			conns = dialMany(t, addr, 20)
		}
		stopProcess(t, next)
		conns = append(conns, dialMany(t, addr, 20)...)
		if err := syscall.Kill(next, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := answered(t, "waiting", conns); got[1] != len(conns) {
			t.Errorf("generations that answered: %v, want %d of 1", got, len(conns))
		}
		m := s.wait("upgrade-failed")
		if !slices.Contains(m.Is, "ErrSuccessorDied") || m.Report.Outcome != handoff.OutcomeRolledBack {
			t.Errorf("upgrade: %v %s, outcome %q", m.Is, m.Err, m.Report.Outcome)
		}
		eventually(t, "the old socket alone listens", func() bool { return slices.Equal(listeners(t, addr), old) })
		s.upgradeNext(addr)
	})
}

// alone waits until a generation gets all new connections. In mode Drain both
// processes do until the traffic is turned away.
func (s *service) alone(addr string, gen uint64) {
	s.tb.Helper()
	if s.set.Mode == handoff.Drain {
		eventually(s.tb, fmt.Sprintf("generation %d gets connections alone", gen), func() bool { return s.steered(addr, gen) })
	}
}

// steered reports whether a run of new connections all reached one generation.
func (s *service) steered(addr string, gen uint64) bool {
	for range 16 {
		got, err := ask("tcp", addr)
		if err != nil {
			s.tb.Errorf("new connection: %v", err)
			return true
		}
		if got != gen {
			return false
		}
	}
	return true
}

// TestDrainRollback takes the traffic back; what waits in the successor is
// served by the predecessor.
func TestDrainRollback(t *testing.T) {
	halfOpen(t, func(t *testing.T, deferred bool) {
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}, Probation: time.Minute, Defer: deferred}).start()
		addrs := s.wait("addrs").Addrs
		addr := addrs[drainSocket]
		pid, old := s.pid(), listeners(t, addr)
		for range 3 {
			s.signal(syscall.SIGUSR2)
			s.wait("paused")
			next := s.waitFor("ready", func(m message) bool { return m.Kind == "ready" && m.Generation == 2 }).PID
			s.alone(addr, 2)
			stopProcess(t, next)
			conns := dialMany(t, addr, 20)
			if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil { // roll back
				t.Fatal(err)
			}
			if got := answered(t, "waiting", conns); got[1] != len(conns) {
				t.Errorf("generations that answered: %v, want %d of 1", got, len(conns))
			}
			if err := syscall.Kill(next, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, "ErrRolledBack") {
				t.Errorf("upgrade: %v %s, want ErrRolledBack", m.Is, m.Err)
			}
			eventually(t, "the old socket alone listens", func() bool { return slices.Equal(listeners(t, addr), old) })
			if gen, err := ask("udp", addrs["1 udp 127.0.0.1:0"]); err != nil || gen != 1 {
				t.Errorf("udp: generation %d, %v, want 1", gen, err)
			}
		}
	})
}

// TestDrainRollbackAnswers takes the traffic back while the successor is about to
// answer a datagram: it still can, and what else it was sent is answered by the
// predecessor.
func TestDrainRollbackAnswers(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"udp 127.0.0.1:0"}, Probation: time.Minute}).start()
	addr, pid := s.wait("addrs").Addrs["0 udp 127.0.0.1:0"], s.pid()
	s.signal(syscall.SIGUSR2)
	s.wait("paused") // the successor alone reads
	const n = 20
	answers := make(chan string, n)
	for range n {
		go func() { // ends with the answer, or in time
			c, err := net.Dial("udp", addr)
			if err != nil {
				answers <- err.Error()
				return
			}
			defer c.Close()
			buf := make([]byte, 64)
			_ = c.SetDeadline(time.Now().Add(patience)) // the read tells
			if _, err := io.WriteString(c, "late"); err != nil {
				answers <- err.Error()
				return
			}
			got, err := c.Read(buf)
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- string(buf[:got])
		}()
	}
	s.wait("late")
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil { // roll back
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for range n {
		counts[<-answers]++
	}
	if counts["2 late"] != 1 || counts["1 late"] != n-1 {
		t.Errorf("answers: %v, want one of generation 2 and %d of generation 1", counts, n-1)
	}
	s.wait("upgrade-failed")
	eventually(t, "the successor's socket is gone", func() bool {
		sockets, err := os.ReadFile("/proc/net/udp")
		return err == nil && bytes.Count(sockets, fmt.Appendf(nil, ":%04X ", netip.MustParseAddrPort(addr).Port())) == 1
	})
	s.stop()
}

// TestDrainHalfOpen commits while handshakes are under way that the predecessor
// can't wait for.
func TestDrainHalfOpen(t *testing.T) {
	t.Parallel()
	for _, probation := range []time.Duration{-1, 100 * time.Millisecond} {
		t.Run(fmt.Sprint(probation), func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: probation, Defer: true}).start()
			addr := s.wait("addrs").Addrs[drainSocket]
			old := listeners(t, addr)
			conns := dialMany(t, addr, 30)
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
			eventually(t, "both sockets listen", func() bool { return len(listeners(t, addr)) == 2 })
			if got := listeners(t, addr); !slices.Contains(got, old[0]) {
				t.Errorf("listening sockets: %v, want %v and another one", got, old)
			}
			if got := answered(t, "half-open", conns); got[2] != len(conns) {
				t.Errorf("generations that answered: %v, want %d of 2", got, len(conns))
			}
			s.drained(addr, 1, old)
		})
	}
}

// TestDrainReport checks the account of a plain move.
func TestDrainReport(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	addrs := s.wait("addrs").Addrs
	if m := s.upgrade(); m.Report.Mode != handoff.Drain {
		t.Errorf("report: %+v, want mode drain", m.Report)
	}
	s.moved(2, 2)
	for _, m := range s.received() {
		if m.Kind == "moved" && m.Group.Address != addrs[drainSocket] && m.Group.Address != addrs["1 udp 127.0.0.1:0"] {
			t.Errorf("group: %+v, want one of %v", m.Group, addrs)
		}
	}
}

// TestDrainSlowStart has successors hang and die before they are ready: they
// never get a connection, and none is lost.
func TestDrainSlowStart(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	addrs := s.wait("addrs").Addrs
	addr := addrs[drainSocket]
	old := listeners(t, addr)
	l := newLoad(t, s.set.Dir, addrs)
	for range 3 {
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
	for round := range 2 {
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
		if ln, err := up.Listen(t.Context(), "tcp", tcp); !errors.Is(err, handoff.ErrUnsupported) || !errors.Is(err, reuseport.ErrForeign) {
			t.Errorf("Listen(%s) = %v, %v, want ErrUnsupported and ErrForeign", tcp, ln, err)
		}
		if pc, err := up.ListenPacket(t.Context(), "udp", udp); !errors.Is(err, handoff.ErrUnsupported) || !errors.Is(err, reuseport.ErrForeign) {
			t.Errorf("ListenPacket(%s) = %v, %v, want ErrUnsupported and ErrForeign", udp, pc, err)
		}
	})
	t.Run("another user", func(t *testing.T) {
		t.Parallel()
		testenv.Need(t, "root")
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}})
		s.startCommand(s.commandAs(65534))
		s.wait("owner")
		o := s.outsider(handoff.Drain)
		if m := o.wait("new"); !strings.Contains(m.Err, "uid") {
			t.Errorf("New() as another user: %s, want a word about the uid", m.Err)
		}
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

// TestDrainModes goes from mode to mode: reuseport sockets are passed on as they
// are by Takeover, and replaced by Drain.
func TestDrainModes(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Reuseport: true, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	addrs := s.wait("addrs").Addrs
	l := newLoad(t, s.set.Dir, addrs)
	for i, mode := range []handoff.Mode{handoff.Takeover, handoff.Drain, handoff.Drain, handoff.Takeover, handoff.Takeover, handoff.Drain, handoff.Drain} {
		l.run(20)
		s.plan(plan{Mode: &mode})
		s.upgrade()
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
	}
	l.run(20)
	l.stop()
	s.stop()
}

// TestDrainOutsiders replaces a service by processes that the test starts.
func TestDrainOutsiders(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	l := newLoad(t, s.set.Dir, s.wait("addrs").Addrs)
	for gen := uint64(1); gen <= 4; gen++ {
		l.run(20)
		o := s.outsider(handoff.Drain)
		o.wait("owner")
		if m := s.wait("committed"); m.Report.Mode != handoff.Drain {
			t.Errorf("report: %+v, want mode drain", m.Report)
		}
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == gen })
		s = o
	}
	l.stop()
	s.stop()
}

// TestDrainKilledUnderLoad kills one of the two at each step, while clients that
// never try again open connections. What fails is at most what the dead process
// had accepted.
func TestDrainKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"predecessor", "successor", "predecessor at commit"} {
		t.Run(victim, func(t *testing.T) {
			set := settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Greet: true}
			if victim == "predecessor at commit" {
				set.Probation = 20 * time.Millisecond
			}
			s := newService(t, set).start()
			addr := s.wait("addrs").Addrs[drainSocket]
			g := newGreeted(t, addr, 16)
			for round := range 8 {
				g.run(200)
				old := s.pid()
				if victim == "predecessor at commit" {
					kind := []string{"committing", "committed"}[round%2]
					s.signal(syscall.SIGUSR2)
					s.waitFor(kind, func(m message) bool { return m.Kind == kind && m.PID == old })
					g.run(int64(round))                    // another moment each time
					_ = syscall.Kill(old, syscall.SIGKILL) // it may have ended by itself
					s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != old })
					continue
				}
				s.plan(plan{At: "probation", How: "wait"})
				s.signal(syscall.SIGUSR2)
				next := s.wait("waits").PID
				// A different moment in each round: the traffic is being turned away.
				g.run(int64(round * 20))
				pid := old
				if victim == "successor" {
					pid = next
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if victim == "successor" {
					s.wait("upgrade-failed")
				} else {
					s.let()
					s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID == next })
				}
				g.run(100)
				_ = os.Remove(filepath.Join(s.set.Dir, "go"))
			}
			g.stop()
			t.Logf("%d connections, %d failed that were accepted, %d that were not", g.asked.Load(), g.accepted.Load(), g.lost.Load())
			if got := g.lost.Load(); got > 0 {
				t.Errorf("%d connections of %d are lost that the dead process had not accepted", got, g.asked.Load())
			}
		})
	}
}

// TestDrainShards changes the number of members with each version, and kills
// every other predecessor in probation.
func TestDrainShards(t *testing.T) {
	t.Parallel()
	addr := "127.66.8.6:" + freePort(t)
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp " + addr, "tcp " + addr, "tcp " + addr}, Probation: 100 * time.Millisecond, Greet: true}).start()
	g := newGreeted(t, addr, 4)
	for round, shards := range []int{1, 4, 2, 2, 5, 3} {
		g.run(100)
		old, before := s.pid(), listeners(t, addr)
		p := plan{Sockets: slices.Repeat([]string{"tcp " + addr}, shards)}
		kill := round%2 == 1
		if kill {
			p.At, p.How = "probation", "wait"
		}
		s.plan(p)
		s.signal(syscall.SIGUSR2)
		if kill {
			s.wait("waits")
			if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s.let()
		}
		s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != old })
		s.drained(addr, shards, before)
		_ = os.Remove(filepath.Join(s.set.Dir, "go"))
	}
	g.run(100)
	g.stop()
	t.Logf("%d connections, %d failed that were accepted, %d that were not", g.asked.Load(), g.accepted.Load(), g.lost.Load())
	if got := g.lost.Load(); got > 0 {
		t.Errorf("%d connections of %d are lost that no dead process had accepted", got, g.asked.Load())
	}
	s.stop()
}

// greeting returns the process that accepts a new connection.
func greeting(addr string) (int, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

// greeted is a load that knows when a connection was accepted.
type greeted struct {
	askers
	accepted, lost atomic.Int64
}

func newGreeted(tb testing.TB, addr string, clients int) *greeted {
	g := &greeted{askers: newAskers(tb)}
	for range clients {
		g.wg.Go(func() { g.loop(addr) }) // ends with stop
	}
	tb.Cleanup(g.stop)
	return g
}

func (g *greeted) loop(addr string) {
	for {
		select {
		case <-g.quit:
			return
		default:
			g.once(addr)
		}
	}
}

func (g *greeted) once(addr string) {
	defer g.asked.Add(1)
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		g.lost.Add(1)
		g.tb.Logf("dial: %v", err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // an error shows below
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); errors.Is(err, io.EOF) {
		// It was accepted: the kernel ends what a killed process had accepted by a
		// FIN, as long as nothing is unread, and resets what was queued.
		g.accepted.Add(1)
		return
	} else if err != nil {
		g.lost.Add(1)
		g.tb.Logf("greeting: %v", err)
		return
	}
	_, err = fmt.Fprintln(c, "x")
	if err == nil {
		_, err = r.ReadString('\n')
	}
	if err != nil {
		g.accepted.Add(1)
	}
}
