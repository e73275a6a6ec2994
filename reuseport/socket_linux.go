package reuseport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// errStop ends a Listen of net before its bind.
var errStop = errors.New("stop before bind")

// openBound returns a socket that is bound to address and does not listen. The
// choice of family, the options and the resolution are those of net: its Listen
// is stopped in the Control hook, which keeps a duplicate of the socket.
func openBound(ctx context.Context, lc *net.ListenConfig, network, address string) (*os.File, error) {
	var dup int
	var bindTo string
	inner := lc.Control
	cfg := *lc
	cfg.Control = func(network, address string, c syscall.RawConn) error {
		if err := inner(network, address, c); err != nil {
			return err
		}
		var derr error
		if err := c.Control(func(fd uintptr) { dup, derr = fdx.DupFD(int(fd)) }); err != nil {
			return err
		}
		if derr != nil {
			return derr
		}
		bindTo = address
		return errStop
	}
	if _, err := cfg.Listen(ctx, network, address); !errors.Is(err, errStop) {
		return nil, err
	}
	sa, err := sockaddrFor(dup, bindTo)
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(dup, sa))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind %s: %w", bindTo, err), fdx.Close(dup))
	}
	return os.NewFile(uintptr(dup), "reuseport "+bindTo), nil
}

// sockaddrFor returns address, as net gives it to a Control hook, for fd's
// family. net leaves out the host of a wildcard.
func sockaddrFor(fd int, address string) (unix.Sockaddr, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	addr := netip.IPv6Unspecified()
	if domain == unix.AF_INET {
		addr = netip.IPv4Unspecified()
	}
	if host != "" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return nil, err
		}
	}
	if domain == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: addr.Unmap().As4(), Port: int(n)}, nil
	}
	if addr.Is4() && addr.IsUnspecified() {
		addr = netip.IPv6Unspecified() // "tcp" with 0.0.0.0 is dual-stack in net
	}
	sa := &unix.SockaddrInet6{Addr: addr.As16(), Port: int(n)}
	if zone := addr.Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa, nil
}

// startListening makes f's socket listen. It borrows f, and returns a listener
// on a duplicate.
func startListening(f *os.File, backlog int) (*net.TCPListener, error) {
	if backlog == 0 {
		backlog = math.MaxInt32 // the kernel cuts it to somaxconn, listen(2)
	}
	err := control(f, func(fd int) error {
		return os.NewSyscallError("listen", unix.Listen(fd, backlog))
	})
	if err != nil {
		return nil, err
	}
	return duplicate(f)
}

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

// setBacklog changes the limit of a listener's queue, by listen(2) again. 0
// leaves it as net has set it, to somaxconn.
func setBacklog(ln *net.TCPListener, backlog int) error {
	if backlog == 0 {
		return nil
	}
	return control(ln, func(fd int) error {
		return os.NewSyscallError("listen", unix.Listen(fd, backlog))
	})
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

func boundAddr(f *os.File) (net.Addr, error) {
	var ap netip.AddrPort
	err := control(f, func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			ap = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			addr := netip.AddrFrom16(sa.Addr)
			if sa.ZoneId != 0 {
				if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
					addr = addr.WithZone(ifi.Name)
				}
			}
			ap = netip.AddrPortFrom(addr, uint16(sa.Port))
		}
		return nil
	})
	return net.TCPAddrFromAddrPort(ap), err
}

func inodeOfConn(c syscall.Conn) (inode uint32, err error) {
	err = control(c, func(fd int) error {
		inode, err = inodeOf(fd)
		return err
	})
	return inode, err
}

func isAddrInUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

// extend returns the order of a group after s has joined as the n-th own member.
// A UDP group is looked at, because members of others make the order unknown;
// that of a TCP group is always found by probing where that is possible.
func extend(udp bool, order []uint32, s *socket, n int) []uint32 {
	if order == nil && n > 1 {
		return nil
	}
	order = append(order, s.inode)
	if !udp {
		return order
	}
	l := leave{c: newCrew(true)}
	if err := l.open(s); err != nil {
		return nil
	}
	defer l.close()
	if inodes, _, err := l.group(); err != nil || !slices.Equal(slices.Sorted(slices.Values(order)), inodes) {
		return nil
	}
	return order
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
