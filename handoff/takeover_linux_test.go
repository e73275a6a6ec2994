package handoff_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// outsider starts a process of the service that its predecessor knows nothing of.
func (s *service) outsider(mode handoff.Mode) *service {
	s.tb.Helper()
	o := newService(s.tb, s.set)
	o.set.Mode = mode
	o.startCommand(o.command())
	return o
}

// TestOutsiders replaces a service by processes that the test has started, again and
// again, under load.
func TestOutsiders(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, State: true}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
	var want strings.Builder
	for gen := uint64(1); gen <= 4; gen++ {
		l.run(20)
		want.WriteString(fmt.Sprintf("%d;", gen))
		o := s.outsider(handoff.Takeover)
		if got := o.wait("state").Err; got != want.String() {
			t.Errorf("state that generation %d has got: %q, want %q", gen+1, got, want.String())
		}
		o.wait("owner")
		m := s.wait("committed")
		if m.Report.Mode != handoff.Takeover || m.Report.Successor.PID != o.cmd.Process.Pid || !strings.HasPrefix(m.Report.Successor.Version, "v") {
			t.Errorf("report: %+v, want a takeover by pid %d", m.Report, o.cmd.Process.Pid)
		}
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == gen })
		s = o
	}
	l.run(20)
	l.stop()
	if got := l.last.Load(); got != 5 {
		t.Errorf("generation that answers: %d, want 5", got)
	}
	s.stop()
}

// TestTakeoverElsewhere has successors in another network namespace than the sockets:
// report and status warn of it, also in the next generation there.
func TestTakeoverElsewhere(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "netns")
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	addrs := s.wait("addrs").Addrs
	o := newService(t, s.set)
	o.netns = netlab.NewNamespace(t)
	cmd := o.command()
	cmd.SysProcAttr = nil // whose Pdeathsig would come with the end of the thread that is in the namespace
	o.startCommand(cmd)
	reports := []*handoff.Report{s.wait("committed").Report}
	o.wait("owner")
	o.signal(syscall.SIGUSR2)
	reports = append(reports, o.wait("committed").Report)
	o.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.Generation == 3 })
	c, err := control.New(&control.Config{Socket: controlOf(s)})
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, warnings := range [][]string{reports[0].Warnings, reports[1].Warnings, st.Warnings} {
		text := strings.Join(warnings, "; ")
		for _, want := range []string{"network namespace", "tcp " + addrs["0 tcp 127.0.0.1:0"], "udp " + addrs["1 udp 127.0.0.1:0"]} {
			if !strings.Contains(text, want) {
				t.Errorf("warnings %q, want %q", text, want)
			}
		}
	}
	mustAnswer(t, addrs["0 tcp 127.0.0.1:0"], 3)
	o.stop()
}

// TestOutsiderStopped stops an outsider at the worst moments: it can't be
// killed by its predecessor, and the two must agree all the same.
func TestOutsiderStopped(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Second, Hang: soon}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	s.plan(plan{At: "probation", How: "stop"})
	o := s.outsider(handoff.Takeover)
	o.wait("stops")
	m := s.wait("upgrade-failed")
	if !slices.Contains(m.Is, "ErrTimeout") {
		t.Errorf("upgrade: %v %s, want ErrTimeout", m.Is, m.Err)
	}
	eventually(t, "the predecessor answers", func() bool {
		gen, err := ask("tcp", addr)
		return err == nil && gen == 1
	})
	if err := syscall.Kill(o.cmd.Process.Pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if m := o.wait("exit"); !slices.Contains(m.Is, "ErrRolledBack") {
		t.Errorf("the successor that woke up ended with %v %s, want ErrRolledBack", m.Is, m.Err)
	}
	s.upgrade()
	s.stop()
}

// TestSeveralLinger has several predecessors linger at once; beyond the limit
// the oldest ends first.
func TestSeveralLinger(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Max: 2, Linger: time.Minute}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	conns := map[uint64]net.Conn{}
	open := func(gen uint64) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		conns[gen] = c
	}
	check := func(gen uint64) {
		t.Helper()
		if got, err := askOver(conns[gen], "x"); err != nil || got != gen {
			t.Errorf("connection of generation %d: answered by %d, %v", gen, got, err)
		}
	}
	for gen := uint64(1); gen <= 4; gen++ {
		open(gen)
		check(gen)
		s.upgrade()
		for old := max(1, int(gen)-1); old <= int(gen); old++ {
			check(uint64(old))
		}
	}
	// Generations 3 and 4 linger; 1 and 2 were ended, in that order.
	first := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" })
	second := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" })
	if first.Generation != 1 || second.Generation != 2 {
		t.Errorf("generations %d and %d ended, want 1 and 2", first.Generation, second.Generation)
	}
	for _, m := range s.received() {
		if m.Kind == "stopped" && m.Report != nil && m.Report.Cut != 1 {
			t.Errorf("generation %d was ended and reports %d connections cut, want 1", m.Generation, m.Report.Cut)
		}
	}
	check(3)
	check(4)
	for _, c := range conns {
		_ = c.Close()
	}
	s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 3 })
	s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 4 })
	s.stop()
}

// TestIdleGenerationsBetween has generations without a connection, which end as
// soon as they are replaced, between those that linger and the one that serves:
// it can still end the oldest, because each has passed the others on before it
// went.
func TestIdleGenerationsBetween(t *testing.T) {
	t.Parallel()
	const lingering, idle = 4, 6
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Max: lingering, Linger: 10 * time.Minute}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	var conns []net.Conn
	for gen := uint64(1); gen <= lingering+idle+1; gen++ {
		if gen <= lingering || gen > lingering+idle {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			conns = append(conns, c)
			if got, err := askOver(c, "x"); err != nil || got != gen {
				t.Fatalf("answered by generation %d, %v, want %d", got, err, gen)
			}
		}
		s.upgrade()
	}
	// Five linger now, one too many.
	s.waitFor("exit of generation 1", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
	for i, c := range conns[1:] {
		if _, err := askOver(c, "x"); err != nil {
			t.Errorf("connection of generation %d: %v", i+2, err)
		}
	}
	for _, c := range conns {
		_ = c.Close()
	}
	for _, gen := range []uint64{2, 3, 4, lingering + idle + 1} {
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == gen })
	}
	s.stop()
}
