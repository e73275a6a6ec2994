package sockets

import (
	"net"
	"net/netip"
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

// NewGate returns a gate before calls that interrupt interrupts.
func NewGate(s GateState, interrupt func(time.Time) error) *Gate {
	g := newGate("call", &net.UnixAddr{}, interrupt)
	g.set(s)
	return g
}

func (g *gate) WatchEntered() <-chan struct{}     { return g.watchEntered() }
func (g *gate) Enter() error                      { return g.enter() }
func (g *gate) Exit()                             { g.exit() }
func (g *gate) Pause()                            { g.pause() }
func (g *gate) Open()                             { g.open() }
func (g *gate) Shut()                             { g.shut() }
func (g *gate) SetUserDeadline(t time.Time) error { return g.setDeadline(t) }

// NewTestSocket returns an open socket with a Listener, which is in no table.
func NewTestSocket(tb testing.TB, network, address string) *Socket {
	tb.Helper()
	h, err := HandleOf(net.Listen(network, address))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := New(Key{Network: network, Address: address}, h, nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	s.Open()
	tb.Cleanup(func() { _ = s.Release() })
	return s
}

// Datagram is one that Offer gives to a read.
type Datagram = datagram

func NewDatagram(data, oob string, flags int, from netip.AddrPort) Datagram {
	return Datagram{[]byte(data), []byte(oob), flags, from}
}

// Offer does what is done with what comes out of a socket that leaves.
func (l *Listener) Offer(c net.Conn, stop <-chan struct{}) bool { return l.queue.push(c, stop) }

func (c *PacketConn) Offer(d Datagram, stop <-chan struct{}) bool { return c.queue.push(d, stop) }

// Shared is a shared count.
type Shared struct{ shared[int] }

// Get is get.
func (s *Shared) Get(run func() int) int { return s.get(run) }
