package reuseport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// control calls f with c's descriptor, which stays open meanwhile. f makes no
// duplicate.
func control(c syscall.Conn, f func(fd int) error) error {
	if m, ok := c.(Member); ok {
		c = m.member().conn // SyscallConn of a member is for users
	}
	return fdx.Borrow(c, f)
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

// inodeOf returns the number under which the kernel reports the socket.
func inodeOf(c syscall.Conn) (inode uint32, err error) {
	err = control(c, func(fd int) (err error) {
		inode, err = inodeOfFD(fd)
		return err
	})
	return inode, err
}

func inodeOfFD(fd int) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return uint32(st.Ino), nil
}

// localAddr returns the address of a TCP or UDP socket. Its zone, if any, is a
// number.
func localAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("address of a socket that is not TCP or UDP: %w", errors.ErrUnsupported)
}

func isAddrInUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }
