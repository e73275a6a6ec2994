package handoff

import (
	"context"
	"net"
	"testing"
	"time"
)

// Names for tests in the external package.
type (
	Gate      = gate
	GateState = gateState
)

const (
	GatePaused = gatePaused
	GateOpen   = gateOpen
	GateShut   = gateShut
)

var NewGate = newGate

func (g *gate) WatchEntered() <-chan struct{}     { return g.watchEntered() }
func (g *gate) Enter() error                      { return g.enter() }
func (g *gate) Exit()                             { g.exit() }
func (g *gate) Pause()                            { g.pause() }
func (g *gate) Open()                             { g.open() }
func (g *gate) Shut()                             { g.shut() }
func (g *gate) SetUserDeadline(t time.Time) error { return g.setDeadline(t) }

// HangTimeout is the silence after which a peer counts as hung.
const HangTimeout = hangTimeout

// ParentDied is what a successor in mode Inherit makes of a failed join.
var ParentDied = parentDied

// NewTestListener returns an open Listener that belongs to no Upgrader.
func NewTestListener(tb testing.TB, network, address string) *Listener {
	tb.Helper()
	inner, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := newListenerSocket(key{network: network, address: address}, inner, false, &net.ListenConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	s.gate.open()
	s.ln.closing = s.release
	tb.Cleanup(func() { _ = s.ln.Close() })
	return s.ln
}

func PauseListener(l *Listener)  { l.gate.pause() }
func ResumeListener(l *Listener) { l.gate.open() }
func ShutListener(l *Listener)   { l.gate.shut() }

// AfterJoin calls f when the sockets of u have joined their groups, before its
// predecessor hears that it is ready. It comes before Ready.
func AfterJoin(u *Upgrader, f func()) {
	if u.successor == nil {
		return
	}
	join := u.successor.Join
	u.successor.Join = func() error {
		if err := join(); err != nil {
			return err
		}
		f()
		return nil
	}
}

// BeforeJoin calls f when the predecessor has duplicates of u's sockets, which have
// not joined their groups yet; an error fails Ready. It comes before Ready.
func BeforeJoin(u *Upgrader, f func() error) {
	if u.successor == nil {
		return
	}
	join := u.successor.Join
	u.successor.Join = func() error {
		if err := f(); err != nil {
			return err
		}
		return join()
	}
}

// Await waits for something that goes on and does not end, or for nothing.
func Await(ctx context.Context, patience time.Duration, goesOn bool) bool {
	p := newPending()
	if goesOn {
		p.begin()
	}
	return p.await(ctx, patience)
}
