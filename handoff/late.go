package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// drains reports whether a socket for k that is made here is a member of a
// SO_REUSEPORT group, which joins when this process is ready.
func (u *Upgrader) drains(k key) bool {
	if !inet(&wire.Socket{Kind: k.kind, Network: k.network}) {
		return false
	}
	return u.lending != nil || u.cfg.Mode == Drain
}

// claimLoan returns the predecessor's member for k, with FD -1 if it has none.
// The table keeps it.
func (u *Upgrader) claimLoan(k key) (session.Item, *wire.Socket, error) {
	none := session.Item{FD: -1}
	if u.lending == nil {
		return none, nil, nil
	}
	it, ok := u.table.claim(k)
	if !ok {
		return none, nil, nil
	}
	u.table.keep(*it)
	return *it, &it.Socket, checkMember(it.FD)
}

// bindLate binds a TCP listener that listens when this process is ready.
func (u *Upgrader) bindLate(ctx context.Context, k key) (*socket, *wire.Socket, error) {
	loan, from, err := u.claimLoan(k)
	if err != nil {
		return nil, nil, err
	}
	address := k.address
	if from != nil {
		address = loan.Socket.Bound
	}
	m, err := reuseport.Bind(ctx, k.network, address, &reuseport.Config{Control: u.cfg.listenConfig.Control})
	if err != nil {
		return nil, nil, err
	}
	fd, err := fdx.Dup(m)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	ln, err := fdx.Listener(fd, k.String())
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	s, err := newListenerSocket(k, ln, true, &u.cfg.listenConfig)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	s.unused = func() { _ = m.Close() } // it has nothing yet
	s.late = func() error {
		defer m.Close() // ln is the same socket
		if err := m.Listen(); err != nil {
			return err
		}
		s.entry.Listening = true
		return nil
	}
	return s, from, nil
}

// bindPacketLate makes a datagram socket that is bound when this process is
// ready, if there is a running one to take the address from, or a bound one.
func (u *Upgrader) bindPacketLate(ctx context.Context, k key) (*socket, *wire.Socket, error) {
	loan, from, err := u.claimLoan(k)
	if err != nil {
		return nil, nil, err
	}
	lc := u.cfg.listenConfig
	if from == nil {
		lc.Control = reuseport.Control(lc.Control)
		pc, err := lc.ListenPacket(ctx, k.network, k.address)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: %w", reuseport.ErrForeign, err)
		}
		if err != nil {
			return nil, nil, err
		}
		s, err := newPacketSocket(k, pc)
		return s, nil, err
	}
	pc, bind, err := openLate(k, loan, &lc)
	if err != nil {
		return nil, nil, err
	}
	s, err := newPacketSocket(k, pc)
	if err != nil {
		return nil, nil, err
	}
	address, err := netip.ParseAddrPort(loan.Socket.Bound)
	if err != nil {
		return nil, nil, errors.Join(err, s.release())
	}
	s.pc.local = net.UDPAddrFromAddrPort(address)
	s.pc.unbound.Store(true)
	s.entry.Bound, s.entry.Sockname = loan.Socket.Bound, loan.Socket.Sockname
	s.late = func() error {
		if err := bind(); err != nil {
			return err
		}
		s.pc.unbound.Store(false)
		return nil
	}
	return s, from, nil
}
