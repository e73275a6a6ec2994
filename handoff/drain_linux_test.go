package handoff_test

import (
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
		if m.Err != "" {
			s.tb.Errorf("moved: %s: %s, want no loss\nlog:\n%s", m.Address, m.Err, s.log())
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
	if n := up.Status().Accepted; n != 0 {
		t.Errorf("%d connections accepted, want none", n)
	}
}

// TestDrainPredecessorHangs stops a predecessor before its successor is ready. The
// successor takes over, and the predecessor yields when it resumes.
func TestDrainPredecessorHangs(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Hang: soon}).start()
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
		if m.Kind == "moved" && m.Address != "tcp "+addrs[drainSocket] && m.Address != "udp "+addrs["1 udp 127.0.0.1:0"] {
			t.Errorf("moved: %s, want one of %v", m.Address, addrs)
		}
	}
}
