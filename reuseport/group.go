package reuseport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
)

// Group is the TCP listeners that this process has on one address, all members
// of one SO_REUSEPORT group, of which other processes can have members too. Its
// methods may be called from any goroutine. Those that steer or let members
// leave take turns, within the process and with other processes that use this
// package.
type Group struct {
	network string
	cfg     Config
	crew    *crew

	mu      sync.Mutex
	address string
	addr    net.Addr    // nil before the first member
	members []*Listener // bound ones as well
	closed  bool
	merged  *merged
}

func newGroup(network, address string, cfg *Config) (*Group, error) {
	c, err := cfg.orDefault()
	if err != nil {
		return nil, err
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	g := &Group{network: network, address: address, cfg: c, crew: newCrew(false)}
	g.crew.fresh = g.openBound
	return g, nil
}

// ListenGroup returns a group of cfg.Members listeners on address. With port 0
// they share a port that the kernel picks. network is tcp, tcp4 or tcp6. Errors
// are those of [Listen]; after one, nothing is left open.
func ListenGroup(ctx context.Context, network, address string, cfg *Config) (*Group, error) {
	g, err := newGroup(network, address, cfg)
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

// Add makes one more member, which gets its share of the connections from now
// on, unless the group is steered: see [Group.Steer]. It may be called while the group serves and while members leave.
func (g *Group) Add(ctx context.Context) (*Listener, error) {
	address, err := g.target()
	if err != nil {
		return nil, err
	}
	ln, err := g.cfg.listenConfig().Listen(ctx, g.network, address)
	if err != nil {
		return nil, g.explain(err)
	}
	tl := ln.(*net.TCPListener)
	if err := setBacklog(tl, g.cfg.Backlog); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return g.adopt(&Listener{tcp: tl})
}

// Bind makes one more member that does not listen yet: see the function [Bind].
func (g *Group) Bind(ctx context.Context) (*Listener, error) {
	if _, err := g.target(); err != nil {
		return nil, err
	}
	f, err := g.openBound(ctx)
	if err != nil {
		return nil, err
	}
	return g.adopt(&Listener{bound: f})
}

// Adopt makes one more member from a listener that is in the kernel's group
// already: one made elsewhere with [Control], one of a unit file, or a duplicate
// that another process has lent. The member has a duplicate of its own; c stays
// the caller's, who closes it whenever he likes. A socket stays in the group
// until its last duplicate is closed, wherever that is.
//
// A socket on another address, or without SO_REUSEPORT, gives [ErrForeign]; one
// that the group has already, an error that matches [io/fs.ErrExist].
func (g *Group) Adopt(c syscall.Conn) (*Listener, error) {
	tl, err := duplicate(c)
	if err != nil {
		return nil, fmt.Errorf("adopt a listener: %w", err)
	}
	g.mu.Lock()
	addr := g.addr
	g.mu.Unlock()
	if err := joinable(tl); err != nil {
		_ = tl.Close() // a duplicate
		return nil, fmt.Errorf("adopt a listener on %v: %w", tl.Addr(), err)
	}
	if addr != nil && addr.String() != tl.Addr().String() {
		_ = tl.Close() // a duplicate
		return nil, fmt.Errorf("adopt a listener on %v into a group on %v: %w", tl.Addr(), addr, ErrForeign)
	}
	return g.adopt(&Listener{tcp: tl, adopted: true})
}

// adopt makes l, which has its socket, a member, or closes that socket.
func (g *Group) adopt(l *Listener) (*Listener, error) {
	l.group = g
	l.open = make(chan struct{})
	l.sock = &socket{conn: loan{l}, shut: l.shutLeft, count: &l.accepted, shared: l.shared.Load}
	l.shared.Store(l.adopted)
	var addr net.Addr
	if l.tcp != nil {
		addr = l.tcp.Addr()
		l.ln.Store(l.tcp)
		close(l.open)
	} else {
		var err error
		if addr, err = boundAddr(l.bound); err != nil {
			return nil, errors.Join(err, l.bound.Close())
		}
	}
	if err := g.insert(l, addr); err != nil {
		_ = l.shut() // the other error says more
		return nil, err
	}
	return l, nil
}

func (g *Group) insert(l *Listener, addr net.Addr) error {
	inode, err := inodeOfConn(l.sock.conn)
	if err != nil {
		return err
	}
	l.sock.inode = inode
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	if g.addr == nil {
		g.addr, g.address = addr, addr.String()
	}
	for _, m := range g.members {
		if m.sock.inode == inode && inode != 0 {
			return fmt.Errorf("the group has this socket already: %w", fs.ErrExist)
		}
	}
	g.members = append(g.members, l)
	if l.tcp != nil {
		if err := g.crew.joined(l.sock); err != nil {
			g.members = g.members[:len(g.members)-1]
			g.crew.drop(l.sock)
			return err
		}
	}
	if g.merged != nil {
		g.merged.serve(l)
	}
	return nil
}

// target returns the address for the next member.
func (g *Group) target() (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return "", ErrClosed
	}
	return g.address, nil
}

// left takes l off the list, and reports whether it was there.
func (g *Group) left(l *Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.members, l)
	if i < 0 {
		return false
	}
	g.members = slices.Delete(g.members, i, i+1)
	return true
}

// Members returns the members of this process, in the order in which they were
// made.
func (g *Group) Members() []*Listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.members)
}

// Addr returns the address of the group, nil if it never had a member.
func (g *Group) Addr() net.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addr
}

// Steer sets which member gets new connections, those of other processes
// included, from the return on: connections whose SYN has come before may still
// go elsewhere. The kernel's choice was checked with connections of this
// process to itself, which never come out of Accept; members of other processes
// see them as connections that are reset at once.
//
// The program names members by their place, so CPU, Weights and Away hold as
// long as no member leaves by a Close; then call Steer again. One that joins gets
// nothing until then.
// Where members come and go all the time it is tried again until ctx ends, and
// the steering is Hash then.
// [ErrNotSteered] means that the kernel does not choose as asked. A kernel or a
// socket that can't be steered gives an error that matches
// [errors.ErrUnsupported].
func (g *Group) Steer(ctx context.Context, s Steering) error {
	return g.crew.steer(ctx, s)
}

// Steering returns what [Group.Steer] has set, unless another process has
// changed it since.
func (g *Group) Steering() Steering { return g.crew.current() }

// Quiesce is the part of Remove before the close: it steers Away from members,
// if that wasn't done, and returns when nothing waits in them, neither a
// handshake nor a queued connection. They stay open, and Steer takes them back.
// In a group that has a [Steerer] the error matches [errors.ErrUnsupported].
func (g *Group) Quiesce(ctx context.Context, members ...*Listener) (Report, error) {
	return g.leave(ctx, members, false)
}

// Remove lets members leave without losing a connection: see
// [Listener.Drain].
func (g *Group) Remove(ctx context.Context, members ...*Listener) (Report, error) {
	return g.leave(ctx, members, true)
}

// Drain is Remove of all members of this process. The group can't be used
// afterwards. Its last member has nobody to leave the traffic to unless other
// processes have members; see [StrategyStopQueueing] and
// [StrategyBestEffort].
func (g *Group) Drain(ctx context.Context) (Report, error) {
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

func (g *Group) leave(ctx context.Context, members []*Listener, shut bool) (Report, error) {
	var socks []*socket
	var errs []error
	for _, l := range members {
		if l.group != g {
			return Report{}, ErrNotMember
		}
		if l.ln.Load() == nil {
			if shut {
				errs = append(errs, l.Close()) // it has never joined
			}
			continue
		}
		if !slices.Contains(socks, l.sock) {
			socks = append(socks, l.sock)
		}
	}
	if len(socks) == 0 {
		return Report{}, errors.Join(errs...)
	}
	report, err := g.crew.remove(ctx, socks, shut)
	return report, errors.Join(append(errs, err)...)
}

// Close closes all members at once, as [Listener.Close] does. A second Close
// returns nil.
func (g *Group) Close() error {
	g.mu.Lock()
	g.closed = true
	members := slices.Clone(g.members)
	g.mu.Unlock()
	var errs []error
	for _, l := range members {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// explain adds what an error of bind(2) or listen(2) means here.
func (g *Group) explain(err error) error {
	if isAddrInUse(err) {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return err
}

func (g *Group) openBound(ctx context.Context) (*os.File, error) {
	g.mu.Lock()
	address := g.address
	g.mu.Unlock()
	f, err := openBound(ctx, g.cfg.listenConfig(), g.network, address)
	if err != nil {
		return nil, g.explain(err)
	}
	return f, nil
}
