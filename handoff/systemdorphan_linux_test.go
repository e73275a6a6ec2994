package handoff_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// fill sends to a manager that reads nothing until not one more message fits.
func (m *manager) fill() {
	m.tb.Helper()
	for {
		// One each: a sender may have no room before the receiver has none.
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.path, Net: "unixgram"})
		if err != nil {
			m.tb.Fatal(err)
		}
		if err = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err == nil {
			_, err = c.Write([]byte("X=1"))
		}
		_ = c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			m.tb.Fatal(err)
		}
	}
}

// TestSystemdOrphan kills the predecessor before it has told systemd of its
// successor, in probation and after the commit: the successor tells of itself.
func TestSystemdOrphan(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for at, set := range map[string]settings{
			"probation": {Probation: time.Minute},
			"committed": {Probation: 20 * time.Millisecond},
		} {
			t.Run(at, func(t *testing.T) {
				t.Parallel()
				set.Mode, set.Sockets = mode, []string{"tcp 127.0.0.1:0"}
				m := newDeafManager(t)
				s := startUnder(m, set)
				addr, first := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], s.pid()
				s.plan(plan{At: "probation", How: map[string]string{"probation": "wait", "committed": "hold"}[at]})
				s.signal(syscall.SIGUSR2)
				next := s.wait("waits").PID
				if at == "committed" {
					m.fill() // the predecessor comes no further than to tell systemd
					s.let()
					s.wait("committed")
					s.waitFor("owner", func(msg message) bool { return msg.Kind == "owner" && msg.PID == next })
				}
				if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				m.listen()
				s.let()
				n := m.await(0, fmt.Sprintf("\nMAINPID=%d\n", next), "\nREADY=1\n", "\nSTATUS=generation 2, version v")
				m.mu.Lock()
				heard, from := slices.Clone(m.heard[:n]), slices.Clone(m.from[:n])
				m.mu.Unlock()
				for i, text := range heard {
					if strings.Contains(text, "MAINPID=") && from[i] != next {
						t.Errorf("process %d, which is dead, has said %q", from[i], text)
					}
				}
				if gen, err := ask("tcp", addr); err != nil || gen != 2 {
					t.Errorf("new connection: generation %d, %v, want 2", gen, err)
				}
				// It is the main process, for systemd and for itself.
				if at == "committed" {
					m.mu.Lock()
					n = len(m.heard)
					m.mu.Unlock()
					report := s.upgrade().Report
					m.await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nREADY=1\n", "\nSTATUS=generation 3, version v")
					s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.PID == next })
				}
				s.stop()
			})
		}
	})
}
