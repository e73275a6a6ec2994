package sockets

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// acceptNow returns the next connection in the queue of ln, or nil if that is empty.
func acceptNow(ln *net.UnixListener) (net.Conn, error) {
	accepted := -1
	err := fdx.Borrow(ln, func(fd int) (err error) {
		accepted, _, err = syscall.Accept4(fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		return os.NewSyscallError("accept4", err)
	})
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINVAL) { // the latter after shutdown(2)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return fdx.UnixConn(accepted, ln.Addr().String())
}
