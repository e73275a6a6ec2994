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

// Steer sets which member gets new connections, those of other processes
// included, from the return on: connections whose SYN has come before may still
// go elsewhere. Steer finds out which place of the group is whose by packets of
// this process to itself, which its members drop; members of other processes see
// connections that are reset at once.
//
// The program names members by their place, so CPU, Weights and Away hold as
// long as no member leaves by a Close; then call Steer again. A member that joins
// gets nothing until then.
// Where members come and go all the time, Steer tries again until ctx ends, and
// the steering is Hash then.
// [ErrNotSteered] means that the kernel does not choose as asked. A kernel or a
// socket that can't be steered gives an error that matches
// [errors.ErrUnsupported].
func (g *Group) Steer(ctx context.Context, s Steering) error { return g.local.steer(ctx, s) }

// Remove lets members leave without losing a connection: see
// [Listener.Drain].
func (g *Group) Remove(ctx context.Context, members ...*Listener) (Report, error) {
	return removeMembers(ctx, g.local, members)
}

// Drain is Remove of all members of this process. The group can't be used
// afterwards. Its last member can leave the traffic to no other unless other
// processes have members; see [StrategyStopQueueing] and [StrategyBestEffort].
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

// Steer sets which member gets new datagrams: see [Group.Steer]. Flows move
// with it: a datagram goes where the new steering says, whatever member has had
// its flow before, and the next ones follow it there.
//
// Steer finds out which place is whose by datagrams to itself, which its members
// drop; members of other processes, or of other groups of this one, get a datagram
// of 16 random bytes each.
func (g *PacketGroup) Steer(ctx context.Context, s Steering) error { return g.local.steer(ctx, s) }

// Remove lets members leave without losing a datagram: see [PacketConn.Drain].
func (g *PacketGroup) Remove(ctx context.Context, members ...*PacketConn) (Report, error) {
	return removeMembers(ctx, g.local, members)
}

// Drain is Remove of all members of this process. The group can't be used
// afterwards.
func (g *PacketGroup) Drain(ctx context.Context) (Report, error) { return g.local.drain(ctx) }

// Close closes all members at once. A second Close returns nil.
func (g *PacketGroup) Close() error { return g.local.close() }
