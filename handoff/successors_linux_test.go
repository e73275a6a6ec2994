package handoff_test

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// TestInheritsByDescent has a process that is no child of the service say that it has
// inherited the sockets, while the service waits for a child that has. It is
// refused, and not killed; the child takes over.
func TestInheritsByDescent(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Inherit, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	s.plan(plan{At: "start", How: "wait"})
	s.signal(syscall.SIGUSR2)
	s.wait("waits")
	p := dialRaw(t, controlOf(s))
	p.send(hello(func(h *wire.Hello) { h.Via = wire.ViaInherit }))
	if reason := p.rest(); reason != failure.PeerRefused {
		t.Errorf("the refusal: %v, want %v", reason, failure.PeerRefused)
	}
	s.let()
	if m := s.waitFor("the end", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" }); m.Kind != "committed" {
		t.Errorf("%s: %s", m.Kind, m.Err)
	}
	mustAnswer(t, addr, 2)
	s.stop()
}

// TestTwoSuccessors starts a second successor while the first one warms up.
func TestTwoSuccessors(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	s.plan(plan{At: "joined", How: "wait"})
	first := s.outsider(handoff.Takeover)
	first.wait("waits")
	second := s.outsider(handoff.Takeover)
	if m := second.wait("new"); !slices.Equal(m.Is, []string{"ErrInProgress"}) {
		t.Errorf("the second successor: %v %s, want ErrInProgress", m.Is, m.Err)
	}
	// Nor does a signal begin one.
	s.signal(syscall.SIGUSR2)
	eventually(t, "the signal is answered", func() bool { return strings.Contains(s.log(), "an upgrade is in progress") })
	s.let()
	first.wait("owner")
	mustAnswer(t, addr, 2)
	first.stop()
}

// TestTwoSuccessorsAtOnce starts several successors at the same moment: one
// takes over, each of the others gets ErrInProgress, or takes over
// from the one before.
func TestTwoSuccessorsAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Linger: time.Second}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
	owners := uint64(1)
	for _, o := range []*service{s.outsider(handoff.Takeover), s.outsider(handoff.Takeover), s.outsider(handoff.Takeover)} {
		m := o.waitFor("owner or new", func(m message) bool { return m.Kind == "owner" || m.Kind == "new" })
		switch {
		case m.Kind == "owner":
			owners++
		case !slices.ContainsFunc(m.Is, busy):
			t.Errorf("a successor: %v %s, want that the predecessor is busy", m.Is, m.Err)
		}
	}
	l.run(20)
	l.stop()
	if owners < 2 {
		t.Error("no successor has taken over")
	}
	mustAnswer(t, addr, owners)
}

// busy reports whether a sentinel says that the predecessor can't begin an upgrade.
func busy(sentinel string) bool {
	return slices.Contains([]string{"ErrInProgress", "ErrNotReady", "ErrInProbation"}, sentinel)
}

// TestFirstAtOnce starts several first processes of one service at the same
// moment: one becomes the first, the others join it or get an error.
func TestFirstAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"unix @baton-test-first"}})
	s.set.Sockets[0] += filepath.Base(s.set.Dir)
	all := []*service{s.outsider(handoff.Takeover), s.outsider(handoff.Takeover), s.outsider(handoff.Takeover)}
	var generations []uint64
	for _, o := range all {
		m := o.waitFor("owner or new", func(m message) bool { return m.Kind == "owner" || m.Kind == "new" })
		switch {
		case m.Kind == "owner":
			generations = append(generations, m.Generation)
		case !slices.ContainsFunc(m.Is, busy):
			t.Errorf("a process: %v %s, want that the predecessor is busy", m.Is, m.Err)
		}
	}
	slices.Sort(generations)
	for i, g := range generations {
		if g != uint64(i+1) {
			t.Errorf("generations that came to own: %v, want 1 and up, each once", generations)
		}
	}
	_, path, _ := strings.Cut(s.set.Sockets[0], " ")
	if gen, err := ask("unix", path); err != nil || gen != uint64(len(generations)) {
		t.Errorf("answered by generation %d, %v, want %d", gen, err, len(generations))
	}
}
