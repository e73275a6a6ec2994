package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// Listen returns the predecessor's listener for network and address, or binds
// a new one. The networks are those of [net.Listen]: tcp, tcp4, tcp6, unix
// (abstract names begin with "@") and unixpacket.
//
// Listen returns the first of these that exists: a socket that the predecessor had
// asked for with the same network and address; another one of the predecessor's that
// is bound to the address; one of systemd's (see Config.NoSystemd); a new one. Several
// sockets can share an address if Config.ListenConfig's Control sets SO_REUSEPORT: each
// call then returns the next of them. Otherwise, and not in mode Drain, a Listen of an
// address for which the program has a listener returns another one on the same socket: a
// server can begin to serve its next configuration before it ends the last one. The socket
// is closed with the last of them. A socket with port 0 keeps the port that the kernel
// chose. Listen replaces the file of a unix socket whose owner was killed.
//
// In mode Drain a new socket replaces a TCP or UDP socket of the predecessor after the
// commit. An error that matches [ErrUnsupported] and reuseport's ErrForeign says that
// the two would not be in one group. If the program asks for more sockets on an address
// than the predecessor has, some of its sockets are the same one until the commit.
//
// The errors of binding are those of package net; for an address in use, which matches
// [syscall.EADDRINUSE], the text says what to do. After Done, Listen returns
// [ErrClosed].
func (u *Upgrader) Listen(ctx context.Context, network, address string) (*Listener, error) {
	return u.listener(ctx, sockets.Key{Kind: wire.KindListener, Network: network, Address: address})
}

// ListenNamed is Listen for a socket that has a name, so that the address in the
// configuration can change: if the predecessor has a socket with that name and network,
// ListenNamed returns it, whatever its address is. Otherwise it binds a new one to
// address. In mode Drain it returns the predecessor's TCP or UDP socket only if that has
// the address.
func (u *Upgrader) ListenNamed(ctx context.Context, name, network, address string) (*Listener, error) {
	if name == "" {
		return nil, errors.New("handoff: listen: empty name")
	}
	return u.listener(ctx, sockets.Key{Kind: wire.KindListener, Name: name, Network: network, Address: address})
}

// ListenPacket is Listen for datagram sockets: udp, udp4, udp6 and unixgram.
func (u *Upgrader) ListenPacket(ctx context.Context, network, address string) (*PacketConn, error) {
	return u.packetConn(ctx, sockets.Key{Kind: wire.KindPacket, Network: network, Address: address})
}

// ListenPacketNamed is ListenPacket for a socket that has a name, as ListenNamed describes
// it.
func (u *Upgrader) ListenPacketNamed(ctx context.Context, name, network, address string) (*PacketConn, error) {
	if name == "" {
		return nil, errors.New("handoff: listen: empty name")
	}
	return u.packetConn(ctx, sockets.Key{Kind: wire.KindPacket, Name: name, Network: network, Address: address})
}

func (u *Upgrader) listener(ctx context.Context, k sockets.Key) (*Listener, error) {
	for {
		s, err := u.listen(ctx, k)
		if err != nil {
			return nil, err
		}
		if share := s.Listener.Share(); share != nil { // not closed meanwhile
			return &Listener{inner: share, track: u.conns.Track}, nil
		}
	}
}

func (u *Upgrader) packetConn(ctx context.Context, k sockets.Key) (*PacketConn, error) {
	s, err := u.listen(ctx, k)
	if err != nil {
		return nil, err
	}
	return &PacketConn{s.PacketConn}, nil
}

// listen returns the socket that answers k among those that have come, or a new one.
func (u *Upgrader) listen(ctx context.Context, k sockets.Key) (*sockets.Socket, error) {
	if err := u.mayListen(); err != nil {
		return nil, err
	}
	s, isNew, err := u.socket(ctx, k)
	if err == nil && isNew {
		if err = u.add(s); err != nil {
			_ = u.mover.Drop(s) // closed as well
		}
	}
	var op *net.OpError
	var wrong *net.AddrError
	switch {
	case errors.As(err, &wrong) && wrong.Err == "unexpected address type":
		return nil, fmt.Errorf("handoff: listen %v: Listen is for streams and ListenPacket for datagrams: %w", k, err)
	case errors.Is(err, syscall.EACCES) && sockets.Inet(&wire.Socket{Kind: k.Kind, Network: k.Network}):
		// ip(7)
		return nil, fmt.Errorf("handoff: listen %v: %w: a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=). In modes Takeover and Inherit only the first process needs it: the successor gets the socket", k, err)
	case errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, reuseport.ErrForeign): // which names the remedy itself
		return nil, fmt.Errorf("handoff: %w: %s", u.besideFlows(k, err), occupied(k)) // package net names the address
	case errors.As(err, &op) && op.Op == "listen": // it names the address
		return nil, fmt.Errorf("handoff: %w", err)
	case err != nil:
		return nil, fmt.Errorf("handoff: listen %v: %w", k, u.besideFlows(k, err))
	}
	return s, nil
}

// occupied says what to do about an address in use.
func occupied(k sockets.Key) string {
	show := "ss -ltnp"
	switch {
	case strings.HasPrefix(k.Network, "unix"):
		show = "ss -lxp"
	case k.Kind == wire.KindPacket:
		show = "ss -lunp"
	}
	return show + " shows, to root, the process that has it: end it if it is another service, or choose another address; if it is a previous version of this service, run both with the same Name, or ControlSocket, so that it passes the socket on"
}

// socket returns the socket for k, and whether it is one that the program does not have yet.
func (u *Upgrader) socket(ctx context.Context, k sockets.Key) (s *sockets.Socket, isNew bool, err error) {
	if s := u.bindAnew(ctx, k); s != nil {
		return s, true, nil
	}
	h, origin, err := u.match(k)
	if err != nil {
		return nil, false, err
	}
	if h == nil {
		if s := u.table.Shared(k); s != nil {
			return s, false, nil
		}
		if over := u.table.Overlapping(k); len(over) > 0 {
			s, err = u.beside(ctx, k, over)
			return s, true, err
		}
	}
	if u.rebinds(k) && (h == nil || u.engine == nil) { // what tableflip has passed on does not move
		s, err = u.rebound(ctx, k, h, origin)
		return s, true, err
	}
	if h == nil {
		h, err = sockets.Bind(ctx, k, &u.cfg.listenConfig, func(err error) bool { return u.systemd.MakeRoom(ctx, k, err) })
		if err != nil {
			return nil, false, err
		}
	}
	s, err = sockets.New(k, h, &u.cfg.listenConfig, origin)
	return s, true, err
}

// mayListen reports why no socket can be opened now. A successor would not get one that
// is opened while an upgrade is under way, and a commit would close it.
func (u *Upgrader) mayListen() error {
	switch life := u.life(); {
	case life.Done():
		return errors.Join(ErrClosed, u.Err())
	case life.Upgrading:
		return ErrInProgress
	}
	return nil
}

// match returns the socket that answers k among those that the predecessor or
// systemd has passed on, or nil.
func (u *Upgrader) match(k sockets.Key) (sockets.Handle, *sockets.Origin, error) {
	a, ok := u.table.Match(k, u.cfg.Mode == Drain)
	if !ok {
		a, ok = u.systemd.Match(k)
	}
	if ok {
		h, err := a.Source.Open(&a.Entry)
		if err != nil || h == nil {
			return nil, nil, err
		}
		return h, &sockets.Origin{Entry: &a.Entry, Stored: systemd.StoredAs(&a.Entry)}, nil
	}
	if u.engine != nil && u.engine.HasParent() && u.successor == nil {
		// A parent on plain tableflip has sent no manifest, nor has one that died too
		// early: it may have anything, under the names that tableflip knows.
		h, err := u.engine.Open(&wire.Socket{Kind: k.Kind, Name: k.Name, Network: k.Network, Address: k.Address, Shard: u.table.NextShard(k)})
		if err != nil || h == nil {
			return nil, nil, err
		}
		return h, &sockets.Origin{}, nil
	}
	return nil, nil, nil
}

// An inherited socket is one that tableflip has passed on and that the manifest
// describes.
type inherited struct {
	engine *inherit.Engine

	mu       sync.Mutex
	borrowed sockets.Handle // what Borrow has opened
}

// Open returns the socket if it is what the manifest says.
func (i *inherited) Open(e *wire.Socket) (sockets.Handle, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if h := i.borrowed; h != nil {
		i.borrowed = nil
		return h, nil
	}
	return i.open(e)
}

func (i *inherited) open(e *wire.Socket) (sockets.Handle, error) {
	h, err := i.engine.Open(e)
	if err != nil || h == nil {
		return nil, err
	}
	if err := fdx.Borrow(h, func(fd int) error { return session.Verify(*e, fd) }); err != nil {
		_ = h.Close() // of no use
		return nil, fmt.Errorf("%w: %w", ErrTransfer, err)
	}
	return h, nil
}

// Borrow takes the socket out of tableflip, which would pass it on.
func (i *inherited) Borrow(e *wire.Socket) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.borrowed == nil {
		h, err := i.open(e)
		if err == nil && h == nil {
			err = fmt.Errorf("%w: %s %s was not inherited", ErrTransfer, e.Network, e.Bound)
		}
		if err != nil {
			return -1, err
		}
		fd, err := fdx.Dup(h)
		if err == nil {
			i.borrowed, err = sockets.Open(sockets.KeyOf(e), fd)
		}
		if err = errors.Join(err, h.Close(), i.engine.Forget(e)); err != nil {
			return -1, err
		}
	}
	return fdx.Number(i.borrowed)
}

// Close closes what was borrowed: tableflip's Ready closes what was not opened.
func (i *inherited) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.borrowed == nil {
		return nil
	}
	return i.borrowed.Close()
}

// add puts a socket into the table and has a child of tableflip's inherit it.
func (u *Upgrader) add(s *sockets.Socket) error {
	passesOn := u.engine != nil && u.cfg.Mode == Inherit
	forget := func() error {
		u.systemd.Changed() // its store would keep the socket open
		_ = u.mover.Drop(s) // the own one has nothing
		if passesOn {
			return u.engine.Forget(&s.Entry)
		}
		return nil
	}
	var err error
	u.owner.ask(func(st *state) {
		if st.life.Upgrading { // since mayListen
			err = errors.Join(ErrInProgress, s.Release())
			return
		}
		err = u.table.Add(s, forget)
	})
	if err != nil {
		return err
	}
	u.systemd.Changed()
	if passesOn {
		if err := u.engine.Add(&s.Entry, s.Handle()); err != nil {
			return errors.Join(err, u.table.Drop(s))
		}
	}
	return nil
}

// closeLeft closes for good what the predecessor had and the program has not asked
// for.
func (u *Upgrader) closeLeft(left []sockets.Arrived) error {
	var errs []error
	for _, a := range left {
		errs = append(errs, a.Source.Close(), sockets.Unlink(&a.Entry))
	}
	return errors.Join(errs...)
}
