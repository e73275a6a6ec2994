package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// drains reports whether a socket for k that is made here is a member of a
// SO_REUSEPORT group, which joins when this process is ready.
func (u *Upgrader) drains(k sockets.Key) bool {
	if !sockets.Inet(&wire.Socket{Kind: k.Kind, Network: k.Network}) {
		return false
	}
	return u.lending != nil || u.cfg.Mode == Drain
}

// matchLoan returns the predecessor's member for k and its origin, which is nil if it has none. lending
// keeps it.
func (u *Upgrader) matchLoan(k sockets.Key) (session.Item, *sockets.Origin, error) {
	none := session.Item{}
	if u.lending == nil {
		return none, nil, nil
	}
	a, ok := u.table.Match(k, true)
	if !ok {
		return none, nil, nil
	}
	u.lending.keep(a)
	fd := int(a.Source.(sockets.Descriptor))
	return session.Item{Socket: a.Entry, FD: fd}, &sockets.Origin{Entry: &a.Entry}, checkMember(fd)
}

// bindLate binds a TCP listener that listens when this process is ready.
func (u *Upgrader) bindLate(ctx context.Context, k sockets.Key) (*sockets.Socket, *sockets.Origin, error) {
	if k.Kind == wire.KindPacket {
		return u.bindPacketLate(ctx, k)
	}
	loan, from, err := u.matchLoan(k)
	if err != nil {
		return nil, nil, err
	}
	address := k.Address
	if from != nil {
		address = loan.Socket.Bound
	}
	m, err := reuseport.Bind(ctx, k.Network, address, &reuseport.Config{Control: u.cfg.listenConfig.Control})
	if err != nil {
		return nil, nil, err
	}
	fd, err := fdx.Dup(m)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	ln, err := sockets.Open(k, fd)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	origin := from
	if origin == nil {
		origin = &sockets.Origin{} // net has forgotten its keep-alive, too
	}
	s, err := sockets.New(k, ln, &u.cfg.listenConfig, origin)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	s.Unused = func() { _ = m.Close() } // it has nothing yet
	s.Late = func() error {
		defer m.Close() // ln is the same socket
		if err := m.Listen(); err != nil {
			return err
		}
		s.Entry.Listening = true
		return nil
	}
	return s, from, nil
}

// bindPacketLate makes a datagram socket that is bound when this process is
// ready, if there is a running one to take the address from, or a bound one.
func (u *Upgrader) bindPacketLate(ctx context.Context, k sockets.Key) (*sockets.Socket, *sockets.Origin, error) {
	loan, from, err := u.matchLoan(k)
	if err != nil {
		return nil, nil, err
	}
	lc := u.cfg.listenConfig
	if from == nil {
		lc.Control = reuseport.Control(lc.Control)
		pc, err := sockets.HandleOf(lc.ListenPacket(ctx, k.Network, k.Address))
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: %w", reuseport.ErrForeign, err)
		}
		if err != nil {
			return nil, nil, err
		}
		s, err := sockets.New(k, pc, nil, nil)
		return s, nil, err
	}
	pc, bind, err := openLate(k, loan, &lc)
	if err != nil {
		return nil, nil, err
	}
	s, err := sockets.New(k, pc, nil, from)
	if err != nil {
		return nil, nil, err
	}
	address, err := netip.ParseAddrPort(loan.Socket.Bound)
	if err != nil {
		return nil, nil, errors.Join(err, s.Release())
	}
	s.PacketConn.Local = net.UDPAddrFromAddrPort(address)
	s.PacketConn.Unbound.Store(true)
	s.Entry.Bound, s.Entry.Sockname = loan.Socket.Bound, loan.Socket.Sockname
	s.Late = func() error {
		if err := bind(); err != nil {
			return err
		}
		s.PacketConn.Unbound.Store(false)
		return nil
	}
	return s, from, nil
}
