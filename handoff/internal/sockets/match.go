package sockets

import (
	"net"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Source has a socket that another process has passed on.
type Source interface {
	// Open returns the socket that e describes, which the caller owns, or nil if
	// there is none. It is called once at most.
	Open(e *wire.Socket) (Handle, error)
	// Close closes what was not opened.
	Close() error
}

// A Descriptor is a Source: a descriptor that was received over a socket.
type Descriptor int

// Open makes a handle of the descriptor.
func (d Descriptor) Open(e *wire.Socket) (Handle, error) { return Open(KeyOf(e), int(d)) }

// Close closes the descriptor.
func (d Descriptor) Close() error { return fdx.Close(int(d)) }

// Arrived is a socket that a predecessor has passed on and that the program has
// not asked for yet.
type Arrived struct {
	Entry  wire.Socket
	Source Source
}

// Match takes the arrived socket that answers k: the first for which the
// predecessor's program asked with k; or, if k has a name, the first of that name;
// or else one that is bound to k's address. Where sameAddress is set, a TCP or UDP
// socket of that name must have the address, too.
func (t *Table) Match(k Key, sameAddress bool) (Arrived, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for q := t.byKey[k]; len(q) > 0; q = t.byKey[k] {
		a := t.arrived[q[0]]
		t.arrived[q[0]] = nil
		t.byKey[k] = q[1:]
		if a != nil {
			return *a, true
		}
	}
	if len(t.arrived) == 0 {
		return Arrived{}, false
	}
	// The same socket by another name: the predecessor asked for ":8080", say, and
	// we ask for "[::]:8080". To bind it again would fail.
	bound, known := Resolve(k.Network, k.Address)
	i := slices.IndexFunc(t.arrived, func(a *Arrived) bool {
		if a == nil || a.Entry.Kind != k.Kind || a.Entry.Network != k.Network || a.Entry.Name != k.Name {
			return false
		}
		if k.Name != "" && !(sameAddress && Inet(&a.Entry)) {
			return true
		}
		return known && a.Entry.Bound == bound
	})
	if i < 0 {
		return Arrived{}, false
	}
	a := t.arrived[i]
	t.arrived[i] = nil
	return *a, true
}

// Resolve returns the address of a socket that is bound to address, if that is
// known before it is bound.
func Resolve(network, address string) (string, bool) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil || a.Port == 0 {
			return "", false
		}
		if a.IP == nil {
			a.IP = wildcard(network)
		}
		return a.String(), true
	case "udp", "udp4", "udp6":
		a, err := net.ResolveUDPAddr(network, address)
		if err != nil || a.Port == 0 {
			return "", false
		}
		if a.IP == nil {
			a.IP = wildcard(network)
		}
		return a.String(), true
	}
	return address, true
}

// wildcard is what net binds where no host is given.
func wildcard(network string) net.IP {
	if network[len(network)-1] == '4' {
		return net.IPv4zero
	}
	return net.IPv6unspecified
}

// Inet reports whether e is a TCP or UDP socket.
func Inet(e *wire.Socket) bool {
	if e.Kind != wire.KindListener && e.Kind != wire.KindPacket {
		return false
	}
	switch e.Network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return true
	}
	return false
}
