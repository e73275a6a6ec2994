//go:build unix

package sockets

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// msgTrunc is the flag of a datagram that was cut off, recvmsg(2).
const msgTrunc = syscall.MSG_TRUNC

// pathID returns the device and the inode of path.
func pathID(path string) (dev, ino uint64, err error) {
	if path == "" {
		return 0, 0, os.ErrNotExist
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, failure.Unsupported
	}
	return uint64(st.Dev), uint64(st.Ino), nil //nolint:unconvert // the types differ between systems
}

// listen calls listen(2).
func listen(fd, backlog int) error { return os.NewSyscallError("listen", syscall.Listen(fd, backlog)) }

// reusesPort reports whether other sockets can be bound where h is (SO_REUSEPORT).
func reusesPort(h syscall.Conn) bool {
	v := 0
	err := fdx.Borrow(h, func(fd int) (err error) {
		v, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		return err
	})
	return err == nil && v != 0 // a unix socket has no such option
}

// refuse has the kernel refuse connections to a unix listener, whose queue stays.
func refuse(ln syscall.Conn) error {
	return fdx.Borrow(ln, func(fd int) error { return os.NewSyscallError("shutdown", syscall.Shutdown(fd, syscall.SHUT_RD)) })
}
