package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// checkMember returns an error unless fd is a socket that others can join.
func checkMember(fd int) error {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_PROTOCOL)", err)
	}
	if protocol == unix.IPPROTO_MPTCP {
		return fmt.Errorf("an MPTCP listener can't be steered: %w", reuseport.ErrForeign)
	}
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_REUSEPORT)", err)
	}
	if v == 0 {
		return fmt.Errorf("the running socket has no SO_REUSEPORT: %w", reuseport.ErrForeign)
	}
	return nil
}

// hasJoined reports whether a TCP socket listens, or a UDP socket is bound: it is
// in its group then.
func hasJoined(kind wire.SocketKind, fd int) bool {
	if kind == wire.KindListener {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return err == nil && v != 0
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port != 0
	case *unix.SockaddrInet6:
		return sa.Port != 0
	}
	return false
}

// inodeOf returns the inode of a descriptor, 0 if it is not known.
func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// holds reports whether a process has one of the sockets open. One that is gone
// has none, nor has one that we may not look into.
func holds(pid int, inodes []uint64) bool {
	if pid <= 0 {
		return false
	}
	links, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	if err != nil {
		return false
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(inodes, func(n uint64) bool { return target == "socket:["+strconv.FormatUint(n, 10)+"]" }) {
			return true
		}
	}
	return false
}

// openLate returns a datagram socket of loan's kind, and what binds it to loan's
// address: a datagram socket joins its group when it is bound, and must not
// before somebody reads it. loan is borrowed for the call.
func openLate(k sockets.Key, loan session.Item, lc *net.ListenConfig) (pc sockets.Handle, bind func() error, err error) {
	sa, err := unix.Getsockname(loan.FD)
	if err != nil {
		return nil, nil, os.NewSyscallError("getsockname", err)
	}
	fd, err := unix.Socket(int(loan.Socket.Domain), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	// What net sets (setDefaultSockopts), with the running socket's IPV6_V6ONLY.
	err = os.NewSyscallError("setsockopt(SO_BROADCAST)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	if err == nil && loan.Socket.Domain == unix.AF_INET6 {
		var only int
		if only, err = unix.GetsockoptInt(loan.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err == nil {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
		}
		err = os.NewSyscallError("IPV6_V6ONLY", err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, fdx.Close(fd))
	}
	if pc, err = sockets.Open(k, fd); err != nil {
		return nil, nil, err
	}
	raw, err := pc.SyscallConn()
	if err == nil {
		network := "udp4"
		if loan.Socket.Domain == unix.AF_INET6 {
			network = "udp6"
		}
		err = reuseport.Control(lc.Control)(network, loan.Socket.Bound, raw)
	}
	if err != nil {
		return nil, nil, errors.Join(err, pc.Close())
	}
	return pc, func() error {
		var berr error
		err := raw.Control(func(fd uintptr) {
			if berr = unix.Bind(int(fd), sa); errors.Is(berr, unix.EADDRINUSE) {
				berr = fmt.Errorf("%w: %w", reuseport.ErrForeign, os.NewSyscallError("bind", berr))
			}
		})
		return errors.Join(err, berr)
	}, nil
}
