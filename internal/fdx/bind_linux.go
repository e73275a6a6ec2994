package fdx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errStop ends a Listen of net before its bind.
var errStop = errors.New("stop before bind")

// Bind returns a TCP socket, or a unix one, that is bound to address and does not listen. The
// choice of family, the options and the resolution are those of net: Bind stops its
// Listen in the Control hook, and keeps a duplicate of the socket, which is the
// caller's. It is no MPTCP socket.
func Bind(ctx context.Context, lc *net.ListenConfig, network, address string) (fd int, err error) {
	cfg := *lc
	cfg.SetMultipathTCP(false) // or net tries again, without
	var bindTo string
	cfg.Control = func(network, address string, c syscall.RawConn) error {
		if lc.Control != nil {
			if err := lc.Control(network, address, c); err != nil {
				return err
			}
		}
		var derr error
		if err := c.Control(func(own uintptr) { fd, derr = DupFD(int(own)) }); err != nil || derr != nil {
			return errors.Join(err, derr)
		}
		bindTo = address
		return errStop
	}
	if ln, err := cfg.Listen(ctx, network, address); !errors.Is(err, errStop) {
		if err == nil {
			err = errors.Join(fmt.Errorf("listen on %s: net called no Control", address), ln.Close())
		}
		return -1, err
	}
	sa, err := sockaddrFor(fd, bindTo)
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, sa))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind %s: %w", bindTo, err), Close(fd))
	}
	return fd, nil
}

// sockaddrFor returns address, as net gives it to a Control hook, for fd's
// family. net leaves out the host of a wildcard.
func sockaddrFor(fd int, address string) (unix.Sockaddr, error) {
	domain, err := getsockopt(fd, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
	}
	if domain == unix.AF_UNIX {
		return &unix.SockaddrUnix{Name: address}, nil
	}
	if strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	addr := ap.Addr()
	if domain == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: addr.Unmap().As4(), Port: int(ap.Port())}, nil
	}
	if addr.Is4() && addr.IsUnspecified() {
		addr = netip.IPv6Unspecified() // "tcp" with 0.0.0.0 is dual-stack in net
	}
	sa := &unix.SockaddrInet6{Addr: addr.As16(), Port: int(ap.Port())}
	if zone := addr.Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa, nil
}
