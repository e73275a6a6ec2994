package spawn

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// newPipe returns a pipe for what is written to out: a pseudo-terminal (pty(7)) where out
// is a terminal, so that a program that asks for one (isatty(3)), or for its size, gets
// the answer that it gets after the commit.
func newPipe(out *os.File) (r, w *os.File, err error) {
	var size *unix.Winsize
	err = fdx.Borrow(out, func(fd int) error {
		size, err = unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		return err
	})
	if err == nil {
		if r, w, err = newTerminal(size); err == nil {
			return r, w, nil
		}
	}
	return os.Pipe() // out is no terminal, or devpts is not mounted
}

// newTerminal returns both sides of a pseudo-terminal that changes nothing of what is
// written.
func newTerminal(size *unix.Winsize) (r, w *os.File, err error) {
	r, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = r.Close() // nothing was written
		}
	}()
	err = fdx.Borrow(r, func(fd int) error {
		err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
		if err == nil {
			err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size)
		}
		if err != nil {
			return os.NewSyscallError("ioctl", err)
		}
		// Its path may lead to the terminal of another devpts (ioctl_tty(2), Linux 4.13).
		peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		w = os.NewFile(peer, "terminal")
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = fdx.Borrow(w, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			t.Oflag &^= unix.OPOST // the terminal at the other end does that
			t.Lflag &^= unix.ECHO
			err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
		}
		return os.NewSyscallError("ioctl", err)
	})
	if err != nil {
		_ = w.Close() // nothing was written
		return nil, nil, err
	}
	return r, w, nil
}
