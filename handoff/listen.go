package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
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
// [ErrUnsupported] and [reuseport.ErrForeign] says that it can't: they belong to
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
			return s.ln, u.activatedEntry(k, sockStream), nil
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
			return s.pc, u.activatedEntry(k, sockDgram), nil
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
	if err != nil && removeStale(k, err) {
		ln, err = lc.Listen(ctx, k.network, k.address)
	}
	return ln, err
}

func (u *Upgrader) bindPacket(ctx context.Context, k key) (net.PacketConn, error) {
	lc := u.cfg.listenConfig
	pc, err := lc.ListenPacket(ctx, k.network, k.address)
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
// that was made late, after Ready, joins its group at once.
func (u *Upgrader) add(s *socket, from *wire.Socket) error {
	var forget func() error
	if u.engine != nil && u.cfg.Mode == Inherit {
		forget = func() error { return u.engine.forget(s) }
	}
	if err := u.table.add(s, from, forget); err != nil {
		return err
	}
	if forget != nil {
		if err := u.engine.add(s); err != nil {
			return errors.Join(err, u.table.drop(s))
		}
	}
	u.mu.Lock()
	starting := u.phase == phaseStarting
	u.mu.Unlock()
	if starting {
		return nil
	}
	if err := s.join(); err != nil {
		return errors.Join(explainForeign(err), u.table.drop(s))
	}
	return nil
}

// AddFile hands f to each successor, under a name. The Upgrader takes ownership
// of f in any case. A socket among the files stays as it is: nobody pauses it.
func (u *Upgrader) AddFile(name string, f *os.File) error {
	if err := u.mayListen(); err != nil {
		return errors.Join(err, f.Close())
	}
	s, err := newFileSocket(name, f)
	if err != nil {
		return fmt.Errorf("handoff: file %q: %w", name, err)
	}
	if err := u.add(s, nil); err != nil {
		return fmt.Errorf("handoff: file %q: %w", name, err)
	}
	return nil
}

// File returns a copy of the file that AddFile was given under name, here or
// in the predecessor; the caller closes it. What came from the predecessor is
// handed on to the next successor as well. It returns an error that matches
// [os.ErrNotExist] if there is none.
func (u *Upgrader) File(name string) (*os.File, error) {
	s := u.table.file(name)
	if s == nil {
		if err := u.mayListen(); err != nil {
			return nil, err
		}
		var err error
		if s, err = u.claimFile(name); err != nil {
			return nil, fmt.Errorf("handoff: file %q: %w", name, err)
		}
	}
	fd, err := fdx.Dup(s.file)
	if err != nil {
		return nil, fmt.Errorf("handoff: file %q: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (u *Upgrader) claimFile(name string) (*socket, error) {
	it, from := u.claim(key{kind: wire.KindFile, name: name})
	if from == nil {
		return nil, os.ErrNotExist
	}
	f := (*os.File)(nil)
	if it.FD >= 0 {
		f = os.NewFile(uintptr(it.FD), name)
	} else {
		var err error
		if f, err = u.engine.inheritedFile(from); err != nil {
			return nil, err
		}
	}
	if f == nil {
		return nil, os.ErrNotExist
	}
	s, err := newFileSocket(name, f)
	if err != nil {
		return nil, err
	}
	return s, u.add(s, from)
}
