package handoff

import (
	"net"
	"os"
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

func (g *gate) Enter() error                      { return g.enter() }
func (g *gate) Exit()                             { g.exit() }
func (g *gate) Pause()                            { g.pause() }
func (g *gate) Open()                             { g.open() }
func (g *gate) Shut()                             { g.shut() }
func (g *gate) SetUserDeadline(t time.Time) error { return g.setDeadline(t) }

// EnvConversation and EnvTableflip are what New takes out of the environment.
const (
	EnvConversation = envConversation
	EnvTableflip    = envTableflip
)

// HangTimeout is the silence after which a peer counts as hung.
const HangTimeout = hangTimeout

// ListenControl and OpenControl bind control sockets.
func ListenControl(path string) (net.Listener, error) { return listenControl(path) }

func OpenControl(path string) (*net.UnixConn, net.Listener, error) { return openControl(path) }

// NewCapture starts to copy a successor's standard error.
func NewCapture(real *os.File) (*Capture, error) { return newCapture(real) }

type Capture = capture

func (c *capture) W() *os.File     { return c.w }
func (c *capture) Lines() []string { return c.lines() }
func (c *capture) Close()          { c.close() }

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
