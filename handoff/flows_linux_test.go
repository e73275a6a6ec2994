package handoff_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// newFlows starts a service with flows, and returns its addresses.
func newFlows(t *testing.T, set settings, p plan) (s *service, addrs map[string]string) {
	t.Helper()
	testenv.Need(t, "reuseport_bpf")
	if set.Linger == 0 {
		set.Linger = patience
	}
	s = newService(t, set)
	s.plan(p)
	s.startCommand(s.commandFor("flows"))
	s.wait("owner")
	return s, s.wait("addrs").Addrs
}

// openFlow opens a flow, and returns the process that has it.
func openFlow(t *testing.T, address string) (*flow, int) {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	f := &flow{conn: c}
	kind, pid, err := f.send(flowOpen)
	if err != nil || kind != flowData {
		t.Fatalf("open a flow: answer %d, %v", kind, err)
	}
	return f, pid
}

// send sends a datagram of the flow and returns the kind of the answer, and the process.
func (f *flow) send(kind byte) (byte, int, error) {
	p := append([]byte{kind}, f.id[:]...)
	if _, err := f.conn.Write(p); err != nil {
		return 0, 0, err
	}
	if err := f.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, 0, err
	}
	b := make([]byte, 100)
	n, err := f.conn.Read(b)
	if err != nil {
		return 0, 0, err
	}
	if n <= len(p) || kind != flowOpen && !bytes.Equal(b[1:len(p)], p[1:]) {
		return 0, 0, fmt.Errorf("answer % x", b[:n])
	}
	copy(f.id[:], b[1:])
	pid, err := strconv.Atoi(string(b[len(p):n]))
	return b[0], pid, err
}

// wantFlow wants a process to answer for a flow.
func wantFlow(t *testing.T, what string, f *flow, kind byte, want int) {
	t.Helper()
	got, pid, err := f.send(kind)
	if err != nil || got != flowData || pid != want {
		t.Errorf("%s: answer %d of pid %d, %v, want one of pid %d", what, got, pid, err, want)
	}
}

// heldFlows are flows of clients, each with the process that has it.
type heldFlows []struct {
	*flow
	owner int
}

// open opens a flow on each address, which the process that serves gets.
func (h *heldFlows) open(t *testing.T, s *service, addrs map[string]string) {
	t.Helper()
	for _, at := range []string{"ids", "kept"} {
		f, pid := openFlow(t, addrs[at])
		if want := s.pid(); pid != want {
			t.Errorf("pid %d has a new flow on %q, want %d", pid, at, want)
		}
		*h = append(*h, struct {
			*flow
			owner int
		}{f, pid})
	}
}

// want sends a datagram of that kind on each flow, which its process answers.
func (h heldFlows) want(t *testing.T, when string, kind byte) {
	t.Helper()
	for i, f := range h {
		wantFlow(t, fmt.Sprint(when, ": flow ", i), f.flow, kind, f.owner)
	}
}

// TestFlows keeps flows with their processes over two upgrades, and has the current one
// answer for them afterwards.
func TestFlows(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s, addrs := newFlows(t, settings{Mode: mode}, plan{})
			var held heldFlows
			open := func() { held.open(t, s, addrs) }
			check := func(when string) { t.Helper(); held.want(t, when, flowData) }
			open()
			first := s.pid()
			r := s.upgrade().Report
			check("after the first upgrade")
			open()
			if len(r.Flows) != 2 || r.Flows[0].Strategy != "lanes" || r.Flows[0].Lane != 0 || r.Flows[0].Current != 1 || len(r.Flows[0].Used) != 2 || r.Flows[1].Kept != 1 {
				t.Errorf("report %+v, want two addresses with two of the lanes used", r.Flows)
			}
			if mode == handoff.Takeover { // of Inherit at most one process lingers
				s.upgrade()
				check("after the second upgrade")
				open()
			}
			held[:2].want(t, "the end", flowEnd)
			s.gone(first)
			held = held[2:]
			s.upgrade()
			check("after the last upgrade")
			held.want(t, "the end", flowEnd)
			s.stop()
		})
	}
}

// TestFlowsRolledBack has a successor give up in its probation: the flows of both
// processes go on, and new ones are the predecessor's.
func TestFlowsRolledBack(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		for _, how := range []string{"abort", "kill"} {
			t.Run(string(mode)+" "+how, func(t *testing.T) {
				t.Parallel()
				s, addrs := newFlows(t, settings{Mode: mode, Probation: patience}, plan{})
				old, first := openFlow(t, addrs["ids"])
				kept, _ := openFlow(t, addrs["kept"])
				s.signal(syscall.SIGUSR2)
				s.wait("paused")
				tried, second := openFlow(t, addrs["ids"])
				if second == first {
					t.Fatal("the predecessor has a new flow in the probation")
				}
				wantFlow(t, "in the probation", old, flowData, first)
				wantFlow(t, "in the probation, by client", kept, flowData, first)
				if how == "abort" {
					if _, err := tried.conn.Write([]byte{flowAbort}); err != nil {
						t.Fatal(err)
					}
				} else if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				s.wait("upgrade-failed")
				wantFlow(t, "after the rollback", old, flowData, first)
				wantFlow(t, "after the rollback, by client", kept, flowData, first)
				if _, pid := openFlow(t, addrs["ids"]); pid != first {
					t.Errorf("after the rollback pid %d has a new flow, want %d", pid, first)
				}
				if how == "abort" {
					wantFlow(t, "of the successor, after the rollback", tried, flowData, second)
					wantFlow(t, "of the successor, the end", tried, flowEnd, second)
					s.gone(second)
				}
				wantReset(t, tried, first)
			})
		}
	}
}

// wantReset waits until a process answers that it does not know a flow.
func wantReset(t *testing.T, f *flow, by int) {
	t.Helper()
	eventually(t, "the current process answers for a flow of one that has ended", func() bool {
		// What the kernel has given to the lane of the other process has no answer.
		if _, err := f.conn.Write(append([]byte{flowData}, f.id[:]...)); err != nil {
			return false
		}
		if err := f.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := f.conn.Read(b)
		return err == nil && n > 0 && b[0] == flowReset && strings.HasSuffix(string(b[:n]), strconv.Itoa(by))
	})
}

// TestFlowsOfKilled kills a predecessor in its linger: the successor answers for its
// flows.
func TestFlowsOfKilled(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s, addrs := newFlows(t, settings{Mode: mode}, plan{})
			f, first := openFlow(t, addrs["ids"])
			s.upgrade()
			s.wait("lingering")
			wantFlow(t, "in the linger", f, flowData, first)
			if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			wantReset(t, f, s.pid())
		})
	}
}

// TestFlowsInProgress refuses an upgrade whose successor would get no lane.
func TestFlowsInProgress(t *testing.T) {
	t.Parallel()
	s, addrs := newFlows(t, settings{Mode: handoff.Takeover, Max: -1}, plan{})
	var flows []*flow
	var owners []int
	for range 3 {
		f, pid := openFlow(t, addrs["ids"])
		flows, owners = append(flows, f), append(owners, pid)
		s.upgrade()
	}
	s.signal(syscall.SIGUSR2)
	eventually(t, "the upgrade is refused", func() bool {
		return strings.Contains(s.log(), "processes that linger have all of the 4 lanes of udp 127.0.0.1:0")
	})
	for i, f := range flows {
		wantFlow(t, "after the refusal", f, flowData, owners[i])
	}
	wantFlow(t, "the end", flows[0], flowEnd, owners[0])
	s.gone(owners[0])
	s.upgrade()
}

// TestFlowsOfPacketConn upgrades a service that had a PacketConn.
func TestFlowsOfPacketConn(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s, addrs := newFlows(t, settings{Mode: mode}, plan{Sockets: []string{"plain"}})
			address := addrs["0 udp 127.0.0.1:0"]
			if gen, err := ask("udp", address); gen != 1 || err != nil {
				t.Fatalf("generation %d, %v", gen, err)
			}
			s.upgrade()
			s.wait("exit")
			m := s.wait("addrs")
			if m.Addrs["ids"] != address {
				t.Fatalf("flows on %s, want %s", m.Addrs["ids"], address)
			}
			f, second := openFlow(t, address)
			s.upgrade()
			wantFlow(t, "after the second upgrade", f, flowData, second)
			if _, pid := openFlow(t, address); pid != s.pid() {
				t.Errorf("pid %d has a new flow, want %d", pid, s.pid())
			}
		})
	}
}

// TestFlowErrors is what ListenFlows refuses.
func TestFlowErrors(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	for network, want := range map[string]string{"tcp": "udp, udp4 and udp6", "unixgram": "udp, udp4 and udp6"} {
		if _, err := up.ListenFlows(t.Context(), network, "127.0.0.1:0", handoff.FlowConfig{}); !errors.Is(err, handoff.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("ListenFlows(%q) = %v, want ErrUnsupported with %q", network, err, want)
		}
	}
	if _, err := up.ListenFlows(t.Context(), "udp", "127.0.0.1:0", handoff.FlowConfig{Lanes: 2}); !errors.Is(err, handoff.ErrUnsupported) || !strings.Contains(err.Error(), "3 to 32") {
		t.Errorf("ListenFlows() with 2 lanes = %v", err)
	}
	drain, err := handoff.New(&handoff.Config{Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer drain.Close()
	if _, err := drain.ListenFlows(t.Context(), "udp", "127.0.0.1:0", handoff.FlowConfig{}); !errors.Is(err, handoff.ErrUnsupported) || !strings.Contains(err.Error(), "mode drain") {
		t.Errorf("ListenFlows() in mode Drain = %v, want ErrUnsupported", err)
	}
}

// TestFlowStatus shows the lanes, and closes them.
func TestFlowStatus(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "reuseport_bpf")
	up := newUpgrader(t, handoff.Config{})
	f, err := up.ListenFlows(t.Context(), "udp", "127.0.0.1:0", handoff.FlowConfig{IDs: flowIDs})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := f.Keep(f.Conn().LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	want := handoff.FlowStatus{Network: "udp", Address: f.Conn().LocalAddr().String(), Strategy: "lanes", Lanes: 8, Used: []int{0}, Kept: 1}
	got := up.Status().Flows
	if len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("Status().Flows = %+v, want %+v", got, want)
	}
	if err := f.Mark(make([]byte, 3)); err == nil {
		t.Error("Mark() takes an ID of 3 bytes")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := up.Status().Flows; len(got) != 0 {
		t.Errorf("Status().Flows after Close() = %+v", got)
	}
}
