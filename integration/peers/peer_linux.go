package main

import "fmt"

// A peer is a way to upgrade a server.
type peer struct {
	name string
	what string // in the table
	how  string // what triggers an upgrade
	// program is what it needs of the root; "" is a server in Go, that is, this
	// program.
	program string
	version []string // prints its version
	// mainStays: an upgrade replaces all processes but the first.
	// stays: it need not replace any.
	mainStays, stays bool

	write   func(n *nest, version uint32) error // writes what an upgrade will read
	start   func(n *nest) error
	upgrade func(n *nest) error
}

// peers are all of them, in the order of the table.
func peers() []*peer {
	all := goPeers()
	for _, more := range [][]*peer{nginxPeers(), haproxyPeers(), webPeers(), appPeers()} {
		all = append(all, more...)
	}
	return all
}

func peerByName(name string) (*peer, error) {
	for _, p := range peers() {
		if p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no peer %q", name)
}
