package fdx_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

func listenTCP(t testing.TB) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func flags(t testing.TB, fd, cmd int) int {
	t.Helper()
	v, err := unix.FcntlInt(uintptr(fd), cmd, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("fcntl", err))
	}
	return v
}

func dup(t testing.TB, fd int) int {
	t.Helper()
	d, err := fdx.DupFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closeAtEnd(t testing.TB, fd int) int {
	t.Helper()
	t.Cleanup(func() { fdx.Close(fd) })
	return fd
}

func TestDup(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	fd, err := fdx.Dup(ln)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, fd)
	number, err := fdx.Number(ln)
	if err != nil {
		t.Fatal(err)
	}
	if number == fd {
		t.Errorf("Dup = %d, the listener's own descriptor", fd)
	}
	if flags(t, fd, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
		t.Error("duplicate lacks FD_CLOEXEC")
	}
	if flags(t, number, unix.F_GETFL)&unix.O_NONBLOCK == 0 {
		t.Error("Dup cleared O_NONBLOCK of the live listener")
	}
}

func TestDupClosed(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	ln.Close()
	if fd, err := fdx.Dup(ln); !errors.Is(err, net.ErrClosed) || fd != -1 {
		t.Errorf("Dup(closed listener) = %d, %v, want -1, net.ErrClosed", fd, err)
	}
	if fd, err := fdx.Number(ln); !errors.Is(err, net.ErrClosed) || fd != -1 {
		t.Errorf("Number(closed listener) = %d, %v, want -1, net.ErrClosed", fd, err)
	}
	if _, err := fdx.DupFD(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("DupFD(-1) = %v, want EBADF", err)
	}
}

func TestCloseJoins(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	fd, err := fdx.Dup(ln)
	if err != nil {
		t.Fatal(err)
	}
	if err := fdx.Close(-1, fd, -1); !errors.Is(err, unix.EBADF) {
		t.Errorf("Close(-1, fd, -1) = %v, want EBADF", err)
	}
	if err := fdx.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
}
