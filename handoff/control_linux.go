package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownerOf(fi os.FileInfo) (int, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// openControl finds out who has the control socket at path: it returns a
// connection to the process that does, or else a new listener. Of several
// processes that come at once, one gets the listener and the others a
// connection to it.
func openControl(path string) (*net.UnixConn, net.Listener, error) {
	if err := makeSocketDir(filepath.Dir(path)); err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	unlock, err := lockFile(path + ".lock")
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w: run both processes as the user that the folder belongs to, or choose another ControlSocket", err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	defer unlock()
	c, err := dialControl(path)
	switch {
	case err == nil:
		return c, nil, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		// Nobody has it any more: its owner was killed. The lock keeps others
		// from doing the same at the same time.
		fi, err := os.Lstat(path)
		if err != nil {
			return nil, nil, fmt.Errorf("control socket: %w", err)
		}
		if fi.Mode()&os.ModeSocket == 0 {
			return nil, nil, fmt.Errorf("control socket: %s exists and is no socket: remove it or choose another ControlSocket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, nil, fmt.Errorf("control socket: %w", err)
		}
	case errors.Is(err, os.ErrNotExist):
	default:
		return nil, nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	ln, err := listenControl(path)
	return nil, ln, err
}

// dialControl connects to a control socket; an abstract one begins with "@".
func dialControl(path string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}

// listenControl binds a control socket. An empty path makes an unnamed one
// (autobind, unix(7)) that only those find who inherit it.
func listenControl(path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// bind(2) gives the path the mode of the socket's inode less the umask,
		// so that it never has a wider one (unix_bind_bsd in the kernel's
		// net/unix/af_unix.c).
		cerr := c.Control(func(fd uintptr) {
			err = os.NewSyscallError("fchmod", unix.Fchmod(int(fd), 0o600))
		})
		return errors.Join(cerr, err)
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return ln, nil
}

// lockFile takes an exclusive lock on a file, which it creates, and waits for it.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			for {
				err = os.NewSyscallError("flock", unix.Flock(int(fd), unix.LOCK_EX))
				if !errors.Is(err, unix.EINTR) {
					return
				}
			}
		})
		err = errors.Join(cerr, err)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil // which gives back the lock
}
