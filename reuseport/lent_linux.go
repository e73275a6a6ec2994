package reuseport

// What mode Drain of package handoff uses until it uses Move.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// duplicate returns a listener on a duplicate of c, which it borrows.
func duplicate(c syscall.Conn) (*net.TCPListener, error) {
	fd, err := fdx.Dup(c)
	if err != nil {
		return nil, err
	}
	ln, err := fdx.Listener(fd, "reuseport")
	if err != nil {
		return nil, err
	}
	tl, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%v is not a TCP listener: %w", ln.Addr(), errors.ErrUnsupported), ln.Close())
	}
	return tl, nil
}

// joinable returns nil if c is a listening TCP socket with SO_REUSEPORT.
func joinable(c syscall.Conn) error {
	return control(c, func(fd int) error {
		if err := isSet(fd, unix.SO_REUSEPORT, "SO_REUSEPORT"); err != nil {
			return err
		}
		return isSet(fd, unix.SO_ACCEPTCONN, "SO_ACCEPTCONN")
	})
}

// duplicatePacket is duplicate for UDP.
func duplicatePacket(c syscall.Conn) (*net.UDPConn, error) {
	fd, err := fdx.Dup(c)
	if err != nil {
		return nil, err
	}
	pc, err := fdx.PacketConn(fd, "reuseport")
	if err != nil {
		return nil, err
	}
	uc, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%v is not a UDP socket: %w", pc.LocalAddr(), errors.ErrUnsupported), pc.Close())
	}
	return uc, nil
}

// joinablePacket returns nil if c is a socket with SO_REUSEPORT.
func joinablePacket(c syscall.Conn) error {
	return control(c, func(fd int) error { return isSet(fd, unix.SO_REUSEPORT, "SO_REUSEPORT") })
}

func isSet(fd, opt int, name string) error {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return os.NewSyscallError("getsockopt("+name+")", err)
	}
	if v == 0 {
		return fmt.Errorf("%s is 0: %w", name, ErrForeign)
	}
	return nil
}

// Bind is [Listen] without its last step: see [Listener.Listen].
func Bind(ctx context.Context, network, address string, cfg *Config) (*Listener, error) {
	g, err := newGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	fd, err := fdx.Bind(ctx, g.local.cfg.listenConfig(), network, address)
	if err != nil {
		return nil, explain(err)
	}
	return &Listener{group: g, bound: os.NewFile(uintptr(fd), "bound")}, nil
}

// Listen makes the socket of [Bind] listen.
func (l *Listener) Listen() error {
	return control(l.bound, func(fd int) error {
		return explain(os.NewSyscallError("listen", unix.Listen(fd, 1<<30)))
	})
}

// Adopt makes one more member from a duplicate of c.
func (g *Group) Adopt(c syscall.Conn) (*Listener, error) {
	tcp, err := duplicate(c)
	if err != nil {
		return nil, fmt.Errorf("adopt a listener: %w", err)
	}
	l := &Listener{group: g, tcp: tcp}
	l.sock = &socket{group: g.local, owner: l, conn: tcp, close: tcp.Close}
	if err := g.local.adopt(l.sock, tcp.Addr(), joinable(tcp)); err != nil {
		return nil, err
	}
	return l, nil
}

// Adopt makes one more member from a duplicate of c.
func (g *PacketGroup) Adopt(c syscall.Conn) (*PacketConn, error) {
	udp, err := duplicatePacket(c)
	if err != nil {
		return nil, fmt.Errorf("adopt a socket: %w", err)
	}
	p := &PacketConn{group: g, udp: udp, reads: readBarrier{setDeadline: udp.SetReadDeadline}}
	p.sock = &socket{group: g.local, owner: p, conn: udp, close: udp.Close, reads: &p.reads}
	if err := g.local.adopt(p.sock, udp.LocalAddr(), joinablePacket(udp)); err != nil {
		return nil, err
	}
	return p, nil
}

func (g *localGroup) adopt(s *socket, addr net.Addr, err error) error {
	s.shared.Store(true)
	if inode, ierr := inodeOf(s.conn); err == nil {
		if err = ierr; err == nil && hasInode(g.sockets(), inode) {
			err = fmt.Errorf("the group has this socket already: %w", fs.ErrExist)
		}
	}
	if at := g.bound(); err == nil && len(g.sockets()) > 0 && at.String() != addr.String() {
		err = fmt.Errorf("adopt a socket on %v into a group on %v: %w", addr, at, ErrForeign)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("adopt a socket on %v: %w", addr, err), s.close())
	}
	g.mu.Lock()
	if len(g.socks) == 0 {
		g.addr = nil
	}
	g.mu.Unlock()
	return g.join(s, addr)
}

// Exclusive says that no duplicate of the socket is used any more.
func (l *Listener) Exclusive() { l.sock.shared.Store(false) }

// Exclusive says that no duplicate of the socket is used any more.
func (p *PacketConn) Exclusive() { p.sock.shared.Store(false) }

// Quiesce is Remove without the close.
func (g *Group) Quiesce(ctx context.Context, members ...*Listener) (Report, error) {
	var socks []*socket
	for _, m := range members {
		socks = append(socks, m.sock)
	}
	return g.local.quiesce(ctx, socks)
}

// Quiesce is Remove without the close.
func (g *PacketGroup) Quiesce(ctx context.Context, members ...*PacketConn) (Report, error) {
	var socks []*socket
	for _, m := range members {
		socks = append(socks, m.sock)
	}
	return g.local.quiesce(ctx, socks)
}

func (g *localGroup) quiesce(ctx context.Context, socks []*socket) (report Report, err error) {
	if len(socks) == 0 {
		return report, nil
	}
	t, err := g.begin(ctx, socks[0], &report)
	defer func() { report.Duration = time.Since(t.start) }()
	defer t.end()
	if err == nil {
		err = t.blind
	}
	if err != nil {
		return report, err
	}
	g.leaving.Add(1)
	defer g.leaving.Add(-1)
	s := Steering{kind: steerAway, away: slices.Clone(g.current().away)}
	for _, sock := range socks {
		s.away = append(s.away, sock)
	}
	for {
		inodes, _, err := t.group()
		if err != nil {
			return report, err
		}
		if err := t.apply(ctx, s); err != nil {
			return report, err
		}
		t.strategy(StrategySteer)
		g.setCurrent(s)
		if err := awaitGrace(ctx); err != nil {
			return report, err
		}
		report.HalfOpen = t.snapshot(socks)
		for left := socks; len(left) > 0 && err == nil; {
			var quiet []*socket
			quiet, err = t.awaitQuiet(ctx, left, inodes)
			left = remaining(left, quiet)
		}
		switch {
		case err == nil && t.is(inodes):
			return report, nil
		case err != nil && !errors.Is(err, errChanged):
			report.Left = t.heldBy(socks)
			return report, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
	}
}
