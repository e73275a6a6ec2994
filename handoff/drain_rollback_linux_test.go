package handoff_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

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
