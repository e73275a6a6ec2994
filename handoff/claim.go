package handoff

import (
	"net"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
)

// claim takes the first arrived socket that answers to k, or that is bound to
// what k's address says.
func (t *table) claim(k key) (*session.Item, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for q := t.byKey[k]; len(q) > 0; q = t.byKey[k] {
		it := t.arrived[q[0]]
		t.arrived[q[0]] = nil
		t.byKey[k] = q[1:]
		if it != nil {
			return it, true
		}
	}
	if k.name != "" {
		return t.named(k)
	}
	if len(t.arrived) == 0 {
		return nil, false
	}
	// The same socket by another name: ":8080" was asked for then, and
	// "[::]:8080" is now. To bind it again would fail.
	bound, ok := resolve(k.network, k.address)
	if !ok {
		return nil, false
	}
	for i, it := range t.arrived {
		if it == nil {
			continue
		}
		if e := &it.Socket; e.Kind == k.kind && e.Name == "" && e.Network == k.network && e.Bound == bound {
			t.arrived[i] = nil
			return it, true
		}
	}
	return nil, false
}

// named is claim by the name alone: the address may have changed, but for members
// in mode Drain, where ours is bound to what k says. t.mu is held.
func (t *table) named(k key) (*session.Item, bool) {
	for i, it := range t.arrived {
		if it == nil {
			continue
		}
		if e := &it.Socket; e.Kind == k.kind && e.Name == k.name && e.Network == k.network {
			if bound, _ := resolve(k.network, k.address); t.lent && inet(e) && bound != e.Bound {
				continue
			}
			t.arrived[i] = nil
			return it, true
		}
	}
	return nil, false
}

// resolve returns the address that a socket has which is bound to address.
func resolve(network, address string) (string, bool) {
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
