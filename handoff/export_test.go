package handoff

import (
	"net"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// HangTimeout is the silence after which a peer counts as hung, by default.
var HangTimeout = hangTimeout

// SetHangTimeout sets it for Upgraders that this process makes from now on.
func SetHangTimeout(d time.Duration) { hangTimeout = d }

// ParentDied is what a successor in mode Inherit makes of a failed join.
var ParentDied = parentDied

// NewTestListener returns an open Listener that belongs to no Upgrader.
func NewTestListener(tb testing.TB, network, address string) *Listener {
	tb.Helper()
	h, err := sockets.HandleOf(net.Listen(network, address))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := sockets.New(sockets.Key{Network: network, Address: address}, h, nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	s.Open()
	tb.Cleanup(func() { _, _ = s.Drop() })
	return &Listener{inner: s.Listener.Share()}
}

// ClosedWithin is for the test of it.
var ClosedWithin = closedWithin

// History is what a process knows of its line.
type History struct{ h *history }

// NewHistory returns the history of a process whose predecessor has sent nothing yet.
func NewHistory() History { return History{newHistory()} }

// Record adds a report, and Pass passes the history on to a successor.
func (h History) Record(r Report) { h.h.record(r) }

func (h History) Pass(to History) error {
	m, err := h.h.account()
	if err != nil {
		return err
	}
	return to.h.receive(m)
}

// Done says that a predecessor has ended its linger.
func (h History) Done(generation, moved uint64) {
	h.h.predecessorDone(generation, wire.Bye{Moved: moved})
}

// Line returns the reports and the totals, as a status has them.
func (h History) Line(moved uint64) ([]Report, *Totals) {
	s := Status{Moved: moved}
	h.h.status(&s)
	return s.Upgrades, s.Totals
}

// ReceiveHistory gives h what a predecessor sends.
func ReceiveHistory(h History, body string) error {
	return h.h.receive(wire.Account{Body: []byte(body)})
}
