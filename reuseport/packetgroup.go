package reuseport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"sync"
	"syscall"
)

// PacketGroup is [Group] for UDP sockets. A UDP socket joins its group when it
// is bound, so there is no Bind.
type PacketGroup struct {
	network string
	cfg     Config
	crew    *crew

	mu      sync.Mutex
	address string
	members []*PacketConn
	closed  bool
}

func newPacketGroup(network, address string, cfg *Config) (*PacketGroup, error) {
	c, err := cfg.orDefault()
	if err != nil {
		return nil, err
	}
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	return &PacketGroup{network: network, address: address, cfg: c, crew: newCrew(true)}, nil
}

// ListenPacketGroup returns a group of cfg.Members sockets on address. With port
// 0 they share a port that the kernel picks. After an error nothing is left
// open.
func ListenPacketGroup(ctx context.Context, network, address string, cfg *Config) (*PacketGroup, error) {
	g, err := newPacketGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	for range g.cfg.Members {
		if _, err := g.Add(ctx); err != nil {
			return nil, errors.Join(err, g.Close())
		}
	}
	return g, nil
}

// Add makes one more member, which gets its share of the flows from now on.
func (g *PacketGroup) Add(ctx context.Context) (*PacketConn, error) {
	g.mu.Lock()
	address, closed := g.address, g.closed
	g.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	pc, err := g.cfg.listenConfig().ListenPacket(ctx, g.network, address)
	if err != nil {
		if isAddrInUse(err) {
			err = fmt.Errorf("%w: %w", ErrForeign, err)
		}
		return nil, err
	}
	return g.adopt(pc.(*net.UDPConn))
}

// Adopt makes one more member from a socket that is in the kernel's group
// already: see [Group.Adopt], and [PacketConn.Exclusive].
func (g *PacketGroup) Adopt(c syscall.Conn) (*PacketConn, error) {
	uc, err := duplicatePacket(c)
	if err != nil {
		return nil, fmt.Errorf("adopt a socket: %w", err)
	}
	g.mu.Lock()
	address, n := g.address, len(g.members)
	g.mu.Unlock()
	if err := joinablePacket(uc); err != nil {
		return nil, errors.Join(fmt.Errorf("adopt a socket on %v: %w", uc.LocalAddr(), err), uc.Close())
	}
	if n > 0 && address != uc.LocalAddr().String() {
		return nil, errors.Join(fmt.Errorf("adopt a socket on %v into a group on %s: %w", uc.LocalAddr(), address, ErrForeign), uc.Close())
	}
	p, err := g.adopt(uc)
	if err == nil {
		p.shared.Store(true)
	}
	return p, err
}

// adopt takes ownership of uc.
func (g *PacketGroup) adopt(uc *net.UDPConn) (*PacketConn, error) {
	p := &PacketConn{group: g, udp: uc, roll: rollCall{interrupt: uc.SetReadDeadline}}
	p.sock = &socket{conn: uc, shut: p.shutLeft, count: &p.read, answering: p.answering, dismiss: p.roll.end, shared: p.shared.Load}
	err := g.insert(p)
	if err != nil {
		return nil, errors.Join(err, uc.Close())
	}
	return p, nil
}

func (g *PacketGroup) insert(p *PacketConn) error {
	inode, err := inodeOfConn(p.udp)
	if err != nil {
		return err
	}
	p.sock.inode = inode
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	for _, m := range g.members {
		if m.sock.inode == inode && inode != 0 {
			return fmt.Errorf("the group has this socket already: %w", fs.ErrExist)
		}
	}
	g.address = p.udp.LocalAddr().String()
	g.members = append(g.members, p)
	return g.crew.joined(p.sock)
}

func (g *PacketGroup) left(p *PacketConn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.members, p)
	if i < 0 {
		return false
	}
	g.members = slices.Delete(g.members, i, i+1)
	return true
}

// Members returns the members of this process, in the order in which they were
// made.
func (g *PacketGroup) Members() []*PacketConn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.members)
}

// Steer sets which member gets new datagrams: see [Group.Steer]. Flows move
// with it: a datagram goes where the new steering says, whatever member has had
// its flow before, and the next ones follow it there.
//
// The kernel's order of the members is found with datagrams to oneself, which
// never come out of a read; members of other processes, or of other groups of
// this one, get one datagram of 16 random bytes each.
func (g *PacketGroup) Steer(ctx context.Context, s Steering) error {
	return g.crew.steer(ctx, s)
}

// Steering returns what Steer has set, unless another process has changed it
// since.
func (g *PacketGroup) Steering() Steering { return g.crew.current() }

// Quiesce turns datagrams away from members and returns when nothing unread is
// in them: see [Group.Quiesce].
func (g *PacketGroup) Quiesce(ctx context.Context, members ...*PacketConn) (Report, error) {
	return g.leave(ctx, members, false)
}

// Remove lets members leave without losing a datagram: see [PacketConn.Drain].
func (g *PacketGroup) Remove(ctx context.Context, members ...*PacketConn) (Report, error) {
	return g.leave(ctx, members, true)
}

// Drain is Remove of all members of this process. The group can't be used
// afterwards.
func (g *PacketGroup) Drain(ctx context.Context) (Report, error) {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	members := slices.Clone(g.members)
	g.mu.Unlock()
	if closed && len(members) == 0 {
		return Report{}, ErrClosed
	}
	return g.leave(ctx, members, true)
}

func (g *PacketGroup) leave(ctx context.Context, members []*PacketConn, shut bool) (Report, error) {
	var socks []*socket
	for _, p := range members {
		if p.group != g {
			return Report{}, ErrNotMember
		}
		if !slices.Contains(socks, p.sock) {
			socks = append(socks, p.sock)
		}
	}
	if len(socks) == 0 {
		return Report{}, nil
	}
	return g.crew.remove(ctx, socks, shut)
}

// Close closes all members at once. A second Close returns nil.
func (g *PacketGroup) Close() error {
	g.mu.Lock()
	g.closed = true
	members := slices.Clone(g.members)
	g.mu.Unlock()
	var errs []error
	for _, p := range members {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
