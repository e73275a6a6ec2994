package fdx

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dup returns a duplicate of c's descriptor that the caller closes. The two
// share one open file description, O_NONBLOCK included; c stays as it is. A
// closed c gives an error that matches [net.ErrClosed] or [os.ErrClosed].
func Dup(c syscall.Conn) (int, error) {
	dup := -1
	err := Borrow(c, func(fd int) error {
		var err error
		dup, err = DupFD(fd)
		return err
	})
	if err != nil {
		return -1, err
	}
	return dup, nil
}

// DupFD is [Dup] for a bare descriptor, which it borrows.
func DupFD(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	return dup, nil
}

// Number returns c's own descriptor. It is borrowed: the number means this file
// only as long as the caller keeps c open and reachable.
func Number(c syscall.Conn) (int, error) {
	number := -1
	err := Borrow(c, func(fd int) error {
		number = fd
		return nil
	})
	return number, err
}

// Close takes ownership of fds and closes each of them, whatever the others
// return; errors are joined. On Linux the descriptor is gone even when close(2)
// reports EINTR or EIO, so there is no second try, which could hit a descriptor
// that another goroutine has just opened.
func Close(fds ...int) error {
	var errs []error
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil && err != unix.EINTR {
			errs = append(errs, os.NewSyscallError("close", err))
		}
	}
	return errors.Join(errs...)
}

// Borrow calls f with c's descriptor, which stays open during the call even if c is
// closed. A closed c gives an error as Dup does.
func Borrow(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
