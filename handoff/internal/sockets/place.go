package sockets

import (
	"net"
	"net/netip"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// A Place is what a socket is bound to, as package net reads a network and an address:
// ":80", "0.0.0.0:80" and "[::]:80" are one place of network tcp, all addresses of both
// families, and the place of tcp4 is another one.
type Place struct {
	// Bound is the address of a socket there, as package net prints it; empty if it is
	// not known before one is bound.
	Bound string

	network string // "tcp" or "udp", or else as it was asked for
	any     bool   // the families' unspecified addresses
	v4, v6  bool   // the families of TCP and UDP
}

// PlaceOf returns the place for a network and an address. It may ask a resolver.
func PlaceOf(network, address string) Place {
	var a netip.AddrPort
	switch network {
	case "tcp", "tcp4", "tcp6":
		if t, err := net.ResolveTCPAddr(network, address); err == nil {
			a = netip.AddrPortFrom(addrOf(t.IP, t.Zone), uint16(t.Port))
		}
	case "udp", "udp4", "udp6":
		if u, err := net.ResolveUDPAddr(network, address); err == nil {
			a = netip.AddrPortFrom(addrOf(u.IP, u.Zone), uint16(u.Port))
		}
	default:
		return Place{Bound: address, network: network}
	}
	return inet(network, a)
}

// addrOf is unspecified where net leaves the host out.
func addrOf(ip net.IP, zone string) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.IPv6Unspecified()
	}
	return a.Unmap().WithZone(zone)
}

// inet returns the place that net chooses (favoriteAddrFamily, net/ipsock_posix.go).
func inet(network string, a netip.AddrPort) Place {
	p := Place{network: network[:3], any: a.Addr().IsUnspecified()}
	if a.Port() == 0 {
		return p
	}
	p.v4, p.v6 = a.Addr().Is4(), a.Addr().Is6()
	if p.any {
		p.v4, p.v6 = !strings.HasSuffix(network, "6"), !strings.HasSuffix(network, "4")
		host := netip.IPv6Unspecified()
		if !p.v6 {
			host = netip.IPv4Unspecified()
		}
		a = netip.AddrPortFrom(host, a.Port())
	}
	p.Bound = a.String()
	return p
}

// placeOf returns the place of a socket that is bound.
func placeOf(e *wire.Socket) Place {
	if !Inet(e) {
		return Place{Bound: e.Bound, network: e.Network}
	}
	a, err := netip.ParseAddrPort(e.Bound)
	network := e.Network
	if err == nil && a.Addr() == netip.IPv4Unspecified() {
		network = network[:3] + "4" // net has found no IPv6
	}
	return inet(network, a)
}

// Has reports whether e is there.
func (p Place) Has(e *wire.Socket) bool {
	o := placeOf(e)
	withoutIPv6 := p.any && p.v4 && p.v6 && o.any && !o.v6 && e.Network == p.network && p.port() == o.port()
	return p.Bound != "" && (p == o || withoutIPv6)
}

// overlaps reports whether one socket can get what is for another one.
func (p Place) overlaps(o Place) bool {
	return p.network == o.network && p.Bound != "" && o.Bound != "" && p.port() == o.port() &&
		(p.v4 && o.v4 || p.v6 && o.v6) && (p.any || o.any || p.Bound == o.Bound)
}

// covers reports whether a socket at p gets all that one at o does.
func (p Place) covers(o Place) bool {
	return p.overlaps(o) && (p.v4 || !o.v4) && (p.v6 || !o.v6) && (p.any || p.Bound == o.Bound)
}

func (p Place) port() string { return p.Bound[strings.LastIndexByte(p.Bound, ':')+1:] }
