package reuseport

import (
	"context"
	"errors"
	"net"
)

// Group is the TCP listeners that this process has on one address, all members
// of one SO_REUSEPORT group, of which other processes can have members too. Its
// methods may be called from any goroutine. Those that steer or let members
// leave take turns, within the process and with other processes that use this
// package.
type Group struct{ local *localGroup }

func newGroup(network, address string, cfg *Config) (*Group, error) {
	local, err := newLocalGroup(network, address, cfg, "tcp", "tcp4", "tcp6")
	return &Group{local}, err
}

// ListenGroup returns a group of cfg.Members listeners on address. With port 0
// they share a port that the kernel picks. network is tcp, tcp4 or tcp6. Errors
// are those of [Listen]; after one, nothing is left open.
func ListenGroup(ctx context.Context, network, address string, cfg *Config) (*Group, error) {
	g, err := newGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	err = g.local.fill(func() error {
		_, err := g.Add(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Add makes one more member, which gets its share of the connections from now
// on, unless the group is steered: see [Group.Steer]. It may be called while the
// group serves and while members leave.
func (g *Group) Add(ctx context.Context) (*Listener, error) {
	address, err := g.local.target()
	if err != nil {
		return nil, err
	}
	ln, err := g.local.cfg.listenConfig().Listen(ctx, g.local.network, address)
	if err != nil {
		return nil, explain(err)
	}
	tcp := ln.(*net.TCPListener)
	if err := setBacklog(tcp, g.local.cfg.Backlog); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	l := &Listener{group: g, tcp: tcp}
	l.sock = &socket{group: g.local, owner: l, conn: tcp, close: tcp.Close}
	if err := g.local.join(l.sock, tcp.Addr()); err != nil {
		return nil, err
	}
	return l, nil
}

// Members returns the members of this process, in the order in which they were
// made.
func (g *Group) Members() []*Listener { return owners[*Listener](g.local) }

// Addr returns the address of the group, nil if it never had a member.
func (g *Group) Addr() net.Addr { return g.local.bound() }

// Steer sets which member gets new connections, those of other processes included, from
// its return on. Connections whose SYN arrived earlier may still go to another member. To
// find the place of each member in the group, Steer sends packets to the group's address:
// see the package documentation.
//
// The program names members by their place. So CPU, Weights and Away are right until a
// member leaves by a Close, and a member that joins gets nothing: call Steer again after
// either. If members join or leave while Steer runs, Steer tries again until ctx ends;
// then the steering is Hash. [ErrNotSteered] means that the kernel does not choose as
// asked. A kernel or a socket that can't be steered gives an error that matches
// [errors.ErrUnsupported].
func (g *Group) Steer(ctx context.Context, s Steering) error { return g.local.steer(ctx, s) }

// Remove makes members leave the group without losing a connection: see [Listener.Drain].
func (g *Group) Remove(ctx context.Context, members ...*Listener) (Report, error) {
	return removeMembers(ctx, g.local, members)
}

// Drain removes all members of this process, as Remove does. The group can't be used
// afterwards. If no other process has members, no member is left to get the new
// connections; see [StrategyStopQueueing] and [StrategyBestEffort].
func (g *Group) Drain(ctx context.Context) (Report, error) { return g.local.drain(ctx) }

// Close closes all members at once, as [Listener.Close] does. A second Close
// returns nil.
func (g *Group) Close() error { return g.local.close() }

// PacketGroup is [Group] for UDP sockets.
type PacketGroup struct{ local *localGroup }

func newPacketGroup(network, address string, cfg *Config) (*PacketGroup, error) {
	local, err := newLocalGroup(network, address, cfg, "udp", "udp4", "udp6")
	return &PacketGroup{local}, err
}

// ListenPacketGroup returns a group of cfg.Members sockets on address. With port
// 0 they share a port that the kernel picks. After an error nothing is left
// open.
func ListenPacketGroup(ctx context.Context, network, address string, cfg *Config) (*PacketGroup, error) {
	g, err := newPacketGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	err = g.local.fill(func() error {
		_, err := g.Add(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Add makes one more member, which gets its share of the flows from now on.
func (g *PacketGroup) Add(ctx context.Context) (*PacketConn, error) {
	address, err := g.local.target()
	if err != nil {
		return nil, err
	}
	pc, err := g.local.cfg.listenConfig().ListenPacket(ctx, g.local.network, address)
	if err != nil {
		return nil, explain(err)
	}
	udp := pc.(*net.UDPConn)
	p := &PacketConn{group: g, udp: udp, reads: readBarrier{setDeadline: udp.SetReadDeadline}}
	p.sock = &socket{group: g.local, owner: p, conn: udp, close: udp.Close, reads: &p.reads}
	if err := g.local.join(p.sock, udp.LocalAddr()); err != nil {
		return nil, err
	}
	return p, nil
}

// Members returns the members of this process, in the order in which they were
// made.
func (g *PacketGroup) Members() []*PacketConn { return owners[*PacketConn](g.local) }

// Steer sets which member gets new datagrams: see [Group.Steer]. Flows move as well: the
// new steering alone decides which member gets a datagram, and the later ones of its
// flow.
//
// To find the place of each member, Steer sends datagrams to the group's address. Its
// members drop these. Each member of another process, or of another Group of this
// process, gets a datagram of 16 random bytes.
func (g *PacketGroup) Steer(ctx context.Context, s Steering) error { return g.local.steer(ctx, s) }

// Remove makes members leave the group without losing a datagram: see [PacketConn.Drain].
func (g *PacketGroup) Remove(ctx context.Context, members ...*PacketConn) (Report, error) {
	return removeMembers(ctx, g.local, members)
}

// Drain is Remove of all members of this process. The group can't be used
// afterwards.
func (g *PacketGroup) Drain(ctx context.Context) (Report, error) { return g.local.drain(ctx) }

// Close closes all members at once. A second Close returns nil.
func (g *PacketGroup) Close() error { return g.local.close() }
