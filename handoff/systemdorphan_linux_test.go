package handoff_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
)

// TestSystemdOrphan kills the predecessor before it has sent systemd the message of
// its successor, in probation and after the commit: the successor introduces itself.
func TestSystemdOrphan(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for at, set := range map[string]settings{
			"probation": {Probation: time.Minute},
			"committed": {Probation: 20 * time.Millisecond},
		} {
			t.Run(at, func(t *testing.T) {
				t.Parallel()
				set.Mode, set.Sockets = mode, []string{"tcp 127.0.0.1:0"}
				m := fakesystemd.New(t)
				s := startUnder(t, m, set)
				addr, first := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], s.pid()
				s.plan(plan{At: "probation", How: map[string]string{"probation": "wait", "committed": "hold"}[at]})
				s.signal(syscall.SIGUSR2)
				next := s.wait("waits").PID
				if at == "committed" {
					m.Fill() // the predecessor gets no further than its message to systemd
					s.let()
					s.wait("committed")
					s.waitFor("owner", func(msg message) bool { return msg.Kind == "owner" && msg.PID == next })
				}
				if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				m.Read()
				s.let()
				n := m.Await(0, fmt.Sprintf("\nMAINPID=%d\n", next), "\nREADY=1\n", "\nSTATUS=generation 2, version v")
				for _, msg := range m.Messages()[:n] {
					if strings.Contains(msg.Text, "MAINPID=") && msg.PID != next {
						t.Errorf("process %d, which is dead, has sent %q", msg.PID, msg.Text)
					}
				}
				if gen, err := ask("tcp", addr); err != nil || gen != 2 {
					t.Errorf("new connection: generation %d, %v, want 2", gen, err)
				}
				// It is the main process, for systemd and for itself.
				if at == "committed" {
					n = len(m.Messages())
					report := s.upgrade().Report
					m.Await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nREADY=1\n", "\nSTATUS=generation 3, version v")
					s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.PID == next })
				}
				s.stop()
			})
		}
	})
}
