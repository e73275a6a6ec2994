package handoff_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

// startAnew starts a process that has nothing of the others, and waits until it serves.
func (s *service) startAnew(addrs map[string]string) {
	s.tb.Helper()
	s.plan(plan{Flows: addrs})
	began := time.Now()
	s.startCommand(s.commandFor("flows"))
	s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID == s.cmd.Process.Pid })
	s.tb.Logf("a process that starts anew serves after %v", time.Since(began))
}

// TestFlowsAfterCrash kills the process that serves while its predecessors linger: a
// process that starts anew serves at once, and the flows of the predecessors stay theirs,
// also over its own upgrade.
func TestFlowsAfterCrash(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s, addrs := newFlows(t, settings{Mode: mode, Max: -1}, plan{})
			var held heldFlows
			open := func() { held.open(t, s, addrs) }
			check := func(when string) { t.Helper(); held.want(t, when, flowData) }
			open()
			s.upgrade()
			if mode == handoff.Takeover { // of Inherit at most one process lingers
				open()
				s.upgrade()
				s.wait("lingering")
			}
			crash := func() {
				t.Helper()
				s.wait("lingering")
				testservice.Crash(t, s.pid())
			}
			crash()
			// A datagram that comes meanwhile waits for the next process.
			early, err := net.Dial("udp", addrs["ids"])
			if err != nil {
				t.Fatal(err)
			}
			defer early.Close()
			if _, err := early.Write(append([]byte{flowOpen}, make([]byte, flowIDLen)...)); err != nil {
				t.Fatal(err)
			}
			s.startAnew(addrs)
			check("after the crash")
			open()
			if n, err := early.Read(make([]byte, 100)); err != nil {
				t.Errorf("the datagram that came before has no answer: %d, %v", n, err)
			}
			if mode == handoff.Inherit {
				return
			}
			s.plan(plan{Flows: addrs})
			s.upgrade()
			check("after the upgrade of the new process")
			open()
			crash()
			s.startAnew(addrs)
			held = held[:len(held)-2] // of the one that was killed
			check("after the second crash")
		})
	}
}

// TestFlowsAfterCrashOfPredecessor kills the predecessor after a rollback: a process that
// starts anew gets the lanes from the successor that was rolled back.
func TestFlowsAfterCrashOfPredecessor(t *testing.T) {
	t.Parallel()
	s, addrs := newFlows(t, settings{Mode: handoff.Takeover, Probation: patience}, plan{})
	s.signal(syscall.SIGUSR2)
	s.wait("paused")
	f, second := openFlow(t, addrs["ids"])
	if _, err := f.conn.Write([]byte{flowAbort}); err != nil {
		t.Fatal(err)
	}
	s.wait("upgrade-failed")
	testservice.Crash(t, s.pid())
	s.startAnew(addrs)
	wantFlow(t, "of the successor that was rolled back", f, flowData, second)
	if _, pid := openFlow(t, addrs["ids"]); pid != s.pid() {
		t.Errorf("pid %d has a new flow, want %d", pid, s.pid())
	}
}

// TestFlowsOfTwo starts a second process of a service on the address of one that serves,
// without the control socket of that: it gets no lanes, also while a predecessor lingers.
func TestFlowsOfTwo(t *testing.T) {
	t.Parallel()
	s, addrs := newFlows(t, settings{Mode: handoff.Takeover}, plan{})
	f, first := openFlow(t, addrs["ids"])
	refused := func(when string) {
		t.Helper()
		up := newUpgrader(t, handoff.Config{})
		_, err := up.ListenFlows(t.Context(), "udp", addrs["ids"], handoff.FlowConfig{IDs: flowIDs})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "ss -lunp") {
			t.Errorf("%s: ListenFlows() = %v, want EADDRINUSE with a remedy", when, err)
		}
	}
	refused("beside one process")
	s.upgrade()
	refused("beside two processes")
	wantFlow(t, "afterwards", f, flowData, first)
	if _, pid := openFlow(t, addrs["ids"]); pid != s.pid() {
		t.Errorf("pid %d has a new flow, want %d", pid, s.pid())
	}
}
