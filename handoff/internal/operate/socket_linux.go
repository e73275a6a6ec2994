package operate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Open returns a connection to the process that serves the control socket at
// path, or a new listener where no process does. Of several processes that call
// it at the same time, one gets the listener and the others a connection to it.
// An empty path makes an abstract socket.
func Open(path string) (*net.UnixConn, net.Listener, error) {
	if path == "" {
		ln, err := listen("")
		return nil, ln, err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", explain(err))
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", explain(err))
	}
	defer unlock()
	c, err := Dial(path)
	switch {
	case err == nil:
		return c, nil, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := removeStale(path); err != nil {
			return nil, nil, fmt.Errorf("control socket: %w", err)
		}
	case errors.Is(err, os.ErrNotExist):
	default:
		return nil, nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	ln, err := listen(path)
	return nil, ln, err
}

// Dial connects to a control socket. The path of an abstract one begins with "@".
func Dial(path string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}

// listen binds a control socket. An empty path makes an abstract one (autobind,
// unix(7)), for processes that inherit it.
func listen(path string) (net.Listener, error) {
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

// makeDir makes the folder of a control socket, or checks it: a user that can
// write into it can replace the socket.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	// A folder of root's is safe: root could replace the socket in any case.
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return &unusable{fmt.Sprintf("folder %s belongs to uid %d, and this process to uid %d: run both as one user, or choose another ControlSocket", dir, st.Uid, os.Geteuid())}
	}
	switch perm := fi.Mode().Perm(); {
	case perm&0o002 != 0: // as /tmp, which has to stay so
		return fmt.Errorf("every user can write to the folder %s: choose a ControlSocket in a folder of its own, such as %s: New makes it", dir, filepath.Join(dir, "NAME", "control.sock"))
	case perm&0o077 != 0:
		return fmt.Errorf("folder %s has mode %#o: others could reach the control socket: chmod 700 it, or choose a ControlSocket in a folder of its own", dir, perm)
	}
	return nil
}

// unusable says why the folder of a control socket can't be this process's.
type unusable struct{ text string }

func (e *unusable) Error() string { return e.text }
func (e *unusable) Unwrap() error { return os.ErrPermission }

// explain says what to do about a folder or lock file that can't be made.
func explain(err error) error {
	var said *unusable
	switch {
	case errors.As(err, &said):
		return err
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: choose a ControlSocket in a folder that uid %d can write to, or set XDG_RUNTIME_DIR to one (RuntimeDirectory= of a systemd unit makes one)", err, os.Geteuid())
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: choose a ControlSocket in a folder that can be written to, or mount a volume or tmpfs there", err)
	}
	return err
}

// removeStale removes the path of a control socket whose process was killed. The
// caller has the lock, or it could remove another process's new socket.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket: remove it or choose another ControlSocket", path)
	}
	return os.Remove(path)
}

// lockFile makes the file at path and waits for an exclusive lock on it.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	fd, err := fdx.Number(f)
	if err == nil {
		err = unix.EINTR
		for errors.Is(err, unix.EINTR) {
			err = os.NewSyscallError("flock", unix.Flock(fd, unix.LOCK_EX))
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil // which gives back the lock
}
