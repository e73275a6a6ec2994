package flows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A group is the sockets of an address, by lane. They are bare descriptors: os.NewFile
// would register them with the poller of this process, which would wake for each datagram
// of another one.
type group []int

// bind makes the group for a network and address, with n sockets. first is a socket that
// is bound there already, or nil; it becomes lane 0 and stays the caller's.
func bind(ctx context.Context, lc net.ListenConfig, network, address string, n int, first syscall.Conn) (g group, err error) {
	defer func() {
		if err != nil {
			g = nil // after the errors of close
		}
	}()
	given := first != nil
	if !given {
		// A bind without SO_REUSEPORT fails where any other socket is: the group is of
		// these sockets alone, in this order.
		c, err := listen(ctx, lc, network, address, 0)
		if err != nil {
			return nil, err
		}
		defer c.Close() // a duplicate stays
		first = c
	}
	fd, err := fdx.Dup(first)
	if err != nil {
		return nil, err
	}
	g = group{fd}
	if err := os.NewSyscallError("setsockopt(SO_REUSEPORT)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)); err != nil {
		return nil, errors.Join(err, g.close())
	}
	if pc, ok := first.(net.PacketConn); ok { // else the caller's address counts
		network, address = family(fd), pc.LocalAddr().String() // not of port 0
	}
	for len(g) < n {
		c, err := listen(ctx, lc, network, address, 1)
		if given && errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: the kernel takes no lane beside the socket that is bound there (%v): another user has bound it, or a third socket is there: end the processes that have it, and start the service anew", failure.Unsupported, err)
		}
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		fd, err := fdx.Dup(c)
		_ = c.Close() // a duplicate stays, which no poller has
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g = append(g, fd)
		// A socket that was bound without SO_REUSEPORT has no group before the second one.
		if len(g) == 2 {
			if err := g.attach(&route{}); err != nil {
				return nil, errors.Join(err, g.close())
			}
		}
	}
	return g, nil
}

// family is the network of UDP sockets that are bound as fd is: net takes "0.0.0.0" of
// network udp for both families.
func family(fd int) string {
	domain, derr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	only, oerr := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	switch {
	case derr == nil && domain == unix.AF_INET:
		return "udp4"
	case oerr == nil && only != 0:
		return "udp6"
	}
	return "udp"
}

// listen binds one socket, with SO_REUSEPORT on or off.
func listen(ctx context.Context, lc net.ListenConfig, network, address string, reuse int) (*net.UDPConn, error) {
	users := lc.Control
	lc.Control = func(network, address string, c syscall.RawConn) error {
		if users != nil {
			if err := users(network, address, c); err != nil {
				return err
			}
		}
		var err error
		cerr := c.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt(SO_REUSEPORT)", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, reuse))
		})
		return errors.Join(cerr, err)
	}
	pc, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: %s is no network of UDP", failure.Unsupported, network), pc.Close())
	}
	return c, nil
}

// attach makes r the program of the group.
func (g group) attach(r *route) error {
	raw, err := r.assemble()
	if err != nil {
		return err
	}
	prog := fprog(raw)
	err = unix.SetsockoptSockFprog(g[0], unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, prog)
	runtime.KeepAlive(prog)
	if err != nil {
		return fmt.Errorf("%w: the kernel takes no steering program of %d instructions for the group: %w: where a sandbox refuses that, allow it; ListenPacket needs none, and then an upgrade ends connections", failure.Unsupported, len(raw), os.NewSyscallError("setsockopt(SO_ATTACH_REUSEPORT_CBPF)", err))
	}
	return nil
}

func fprog(raw []bpf.RawInstruction) *unix.SockFprog {
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
}

// flush discards what waits in a lane: no process has had it, so what waits is for the
// flows of one that has ended.
func (g group) flush(lane int) {
	var b [1]byte
	const most = 1 << 16
	for range most {
		if _, _, err := unix.Recvfrom(g[lane], b[:], unix.MSG_DONTWAIT); err != nil && err != unix.EINTR {
			return
		}
	}
}

// conn returns a lane for use. The caller closes it.
func (g group) conn(lane int) (*net.UDPConn, error) {
	fd, err := fdx.DupFD(g[lane])
	if err != nil {
		return nil, err
	}
	pc, err := fdx.PacketConn(fd, "lane")
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

func (g group) close() error { return fdx.Close(g...) }
