package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Listen returns the predecessor's listener for network and address, or binds
// a new one. The networks are those of [net.Listen]: tcp, tcp4, tcp6, unix
// (abstract names begin with "@") and unixpacket.
//
// The first call for an address gets the first socket that the predecessor had
// asked for by the same network and address, the next call the next one
// (several sockets can share an address with SO_REUSEPORT, set by
// Config.ListenConfig's Control). Failing that, a socket that is bound to the
// address is taken; failing that, one of systemd's (see Config.NoSystemd). Port 0
// keeps the port that it came to mean.
//
// In mode Drain a TCP or UDP socket is always a new one, on the address of the
// predecessor's. It joins the running ones at Ready; an error that matches
// [ErrUnsupported] and reuseport's ErrForeign says that it can't: they belong to
// another user, or were made without SO_REUSEPORT.
//
// The errors of binding are those of package net; a unix socket whose owner
// was killed is replaced. After Done it returns [ErrClosed].
func (u *Upgrader) Listen(ctx context.Context, network, address string) (*Listener, error) {
	return u.listen(ctx, key{kind: wire.KindListener, network: network, address: address})
}

// ListenNamed is Listen for a socket that the predecessor knows by name, so
// that its address can change between versions: the old socket is kept while
// the name and network are, whatever address says. Without a predecessor that
// has it, a new one is bound to address. In mode Drain, where each process has
// sockets of its own, a TCP or UDP socket is always bound to address.
func (u *Upgrader) ListenNamed(ctx context.Context, name, network, address string) (*Listener, error) {
	if name == "" {
		return nil, errors.New("handoff: listen: empty name")
	}
	return u.listen(ctx, key{wire.KindListener, name, network, address})
}

// ListenPacket is Listen for datagram sockets: udp, udp4, udp6 and unixgram.
func (u *Upgrader) ListenPacket(ctx context.Context, network, address string) (*PacketConn, error) {
	return u.listenPacket(ctx, key{kind: wire.KindPacket, network: network, address: address})
}

// ListenPacketNamed is ListenPacket for a socket that is known by name.
func (u *Upgrader) ListenPacketNamed(ctx context.Context, name, network, address string) (*PacketConn, error) {
	if name == "" {
		return nil, errors.New("handoff: listen: empty name")
	}
	return u.listenPacket(ctx, key{wire.KindPacket, name, network, address})
}

func (u *Upgrader) listen(ctx context.Context, k key) (*Listener, error) {
	if err := u.mayListen(); err != nil {
		return nil, err
	}
	s, from, err := u.listenerSocket(ctx, k)
	if err != nil {
		return nil, err
	}
	s.ln.conns = u.conns
	if err := u.add(s, from); err != nil {
		return nil, fmt.Errorf("handoff: listen %v: %w", k, err)
	}
	return s.ln, nil
}

// listenerSocket gets the predecessor's listener or makes a new one.
func (u *Upgrader) listenerSocket(ctx context.Context, k key) (*socket, *wire.Socket, error) {
	var ln net.Listener
	var from *wire.Socket
	var err error
	if u.lending == nil || !u.drains(k) {
		if ln, from, err = u.claimListener(k); err != nil {
			return nil, nil, fmt.Errorf("handoff: listen %v: %w", k, err)
		}
	}
	if ln == nil && u.drains(k) {
		s, from, err := u.bindLate(ctx, k)
		if err != nil {
			return nil, nil, fmt.Errorf("handoff: listen %v: %w", k, explainForeign(err))
		}
		return s, from, nil
	}
	inherited := ln != nil
	if !inherited {
		if ln, err = u.bind(ctx, k); err != nil {
			return nil, nil, fmt.Errorf("handoff: %w", err)
		}
	}
	s, err := newListenerSocket(k, ln, inherited, &u.cfg.listenConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("handoff: listen %v: %w", k, err)
	}
	return s, from, nil
}

func (u *Upgrader) listenPacket(ctx context.Context, k key) (*PacketConn, error) {
	if err := u.mayListen(); err != nil {
		return nil, err
	}
	s, from, err := u.packetSocket(ctx, k)
	if err != nil {
		return nil, err
	}
	if err := u.add(s, from); err != nil {
		return nil, fmt.Errorf("handoff: listen %v: %w", k, err)
	}
	return s.pc, nil
}

// packetSocket is listenerSocket for datagram sockets.
func (u *Upgrader) packetSocket(ctx context.Context, k key) (*socket, *wire.Socket, error) {
	var pc net.PacketConn
	var from *wire.Socket
	var err error
	if u.lending == nil || !u.drains(k) {
		if pc, from, err = u.claimPacketConn(k); err != nil {
			return nil, nil, fmt.Errorf("handoff: listen %v: %w", k, err)
		}
	}
	if pc == nil && u.drains(k) {
		s, from, err := u.bindPacketLate(ctx, k)
		if err != nil {
			return nil, nil, fmt.Errorf("handoff: listen %v: %w", k, explainForeign(err))
		}
		return s, from, nil
	}
	if pc == nil {
		if pc, err = u.bindPacket(ctx, k); err != nil {
			return nil, nil, fmt.Errorf("handoff: %w", err)
		}
	}
	s, err := newPacketSocket(k, pc)
	if err != nil {
		return nil, nil, fmt.Errorf("handoff: listen %v: %w", k, err)
	}
	return s, from, nil
}

// mayListen reports why no socket can be opened any more.
func (u *Upgrader) mayListen() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase >= phaseLingering {
		return errors.Join(ErrClosed, u.err)
	}
	return nil
}

// claimListener returns the predecessor's listener for k and its entry, or nil.
func (u *Upgrader) claimListener(k key) (net.Listener, *wire.Socket, error) {
	it, from := u.claim(k)
	if from == nil {
		if s, ok := u.activation.claim(k); ok {
			return s.ln, u.activatedEntry(s, k, sockStream), nil
		}
		return nil, nil, nil
	}
	if it.FD >= 0 {
		ln, err := fdx.Listener(it.FD, k.String())
		return ln, from, err
	}
	ln, err := u.engine.listener(from)
	if err != nil || ln == nil {
		return nil, nil, err
	}
	return ln, from, u.checkInherited(from, ln)
}

func (u *Upgrader) claimPacketConn(k key) (net.PacketConn, *wire.Socket, error) {
	it, from := u.claim(k)
	if from == nil {
		if s, ok := u.activation.claim(k); ok {
			return s.pc, u.activatedEntry(s, k, sockDgram), nil
		}
		return nil, nil, nil
	}
	if it.FD >= 0 {
		pc, err := fdx.PacketConn(it.FD, k.String())
		return pc, from, err
	}
	pc, err := u.engine.packetConn(from)
	if err != nil || pc == nil {
		return nil, nil, err
	}
	return pc, from, u.checkInherited(from, pc)
}

// claim finds k among what has come. A parent on plain tableflip has sent no
// manifest, nor has one that died too early: it may have anything, under the
// names that tableflip knows.
func (u *Upgrader) claim(k key) (session.Item, *wire.Socket) {
	if it, ok := u.table.claim(k); ok {
		return *it, &it.Socket
	}
	if u.engine != nil && u.engine.child() && u.successor == nil {
		return session.Item{FD: -1}, &wire.Socket{Kind: k.kind, Name: k.name, Network: k.network, Address: k.address, Shard: u.table.nextShard(k)}
	}
	return session.Item{}, nil
}

// checkInherited compares an inherited socket with the manifest, if there is one.
func (u *Upgrader) checkInherited(from *wire.Socket, c any) error {
	if from.SockType == 0 {
		return nil // there is no manifest
	}
	conn, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	fd, err := fdx.Number(conn)
	if err != nil {
		return err
	}
	if err := session.Verify(*from, fd); err != nil {
		return fmt.Errorf("%w: %w", ErrTransfer, err)
	}
	return nil
}

// bind binds a new listener.
func (u *Upgrader) bind(ctx context.Context, k key) (net.Listener, error) {
	lc := u.cfg.listenConfig
	ln, err := lc.Listen(ctx, k.network, k.address)
	if err != nil && u.makeRoom(ctx, k, err) {
		ln, err = lc.Listen(ctx, k.network, k.address)
	}
	if err != nil && removeStale(k, err) {
		ln, err = lc.Listen(ctx, k.network, k.address)
	}
	return ln, err
}

func (u *Upgrader) bindPacket(ctx context.Context, k key) (net.PacketConn, error) {
	lc := u.cfg.listenConfig
	pc, err := lc.ListenPacket(ctx, k.network, k.address)
	if err != nil && u.makeRoom(ctx, k, err) {
		pc, err = lc.ListenPacket(ctx, k.network, k.address)
	}
	if err != nil && removeStale(k, err) {
		pc, err = lc.ListenPacket(ctx, k.network, k.address)
	}
	return pc, err
}

// removeStale removes the path of a unix socket whose owner did not live to do
// it: one that nobody answers at.
func removeStale(k key, err error) bool {
	switch k.network {
	case "unix", "unixpacket", "unixgram":
	default:
		return false
	}
	if !errors.Is(err, syscall.EADDRINUSE) || k.address == "" || k.address[0] == '@' {
		return false
	}
	fi, err := os.Lstat(k.address)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.DialUnix(k.network, nil, &net.UnixAddr{Name: k.address, Net: k.network})
	if err == nil {
		_ = c.Close() // somebody is there
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(k.address) == nil
}

// add puts a socket into the table and has a child of tableflip's inherit it. One
// that was made late, when the others have joined their groups, joins at once.
func (u *Upgrader) add(s *socket, from *wire.Socket) error {
	inherit := u.engine != nil && u.cfg.Mode == Inherit
	joined, err := u.table.add(s, from, func() error {
		u.updateStore(nil) // which would keep it open
		if inherit {
			return u.engine.forget(s)
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.store.changed()
	if inherit {
		if err := u.engine.add(s); err != nil {
			return errors.Join(err, u.table.drop(s))
		}
	}
	if !joined {
		return nil
	}
	if err := s.join(); err != nil {
		return errors.Join(explainForeign(err), u.table.drop(s))
	}
	return nil
}
