package handoff_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
)

// TestSystemdLate lets systemd read nothing for longer than a process waits for it:
// systemd gets the message of the start all the same, and that of the new main process
// from the predecessor, before that ends.
func TestSystemdLate(t *testing.T) {
	t.Parallel()
	givesUp := func(s *service) {
		eventually(t, "the process gives systemd up for now", func() bool { return strings.Contains(s.log(), "i/o timeout") })
	}
	t.Run("ready", func(t *testing.T) {
		t.Parallel()
		m := fakesystemd.New(t)
		m.Fill()
		s := startUnder(t, m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
		givesUp(s)
		m.Read()
		m.Await(0, "\nREADY=1\n", "\nSTATUS=generation 1, version v")
		s.stop()
	})
	t.Run("replaced", func(t *testing.T) {
		t.Parallel()
		m := fakesystemd.New(t)
		s := startUnder(t, m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
		first := s.pid()
		s.plan(plan{At: "probation", How: "hold"})
		s.signal(syscall.SIGUSR2)
		next := s.wait("waits").PID
		m.Fill()
		s.let()
		s.wait("committed")
		givesUp(s)
		m.Read()
		n := m.Await(0, fmt.Sprintf("\nMAINPID=%d\n", next), "\nREADY=1\n", "\nSTATUS=generation 2, version v")
		if from := m.Messages()[n-1].PID; from != first {
			t.Errorf("process %d has named the main process, want %d", from, first)
		}
		m.Await(n, "\nBARRIER=1\n")
		s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.PID == first })
		// It knows that it is the main process, and the history.
		report := s.upgrade().Report
		m.Await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nSTATUS=generation 3, version v")
		s.stop()
	})
}
