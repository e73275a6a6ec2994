package operate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// Open returns a connection to the process that serves the control socket at
// path, or a new listener where no process does. Of several processes that call
// it at the same time, one gets the listener and the others a connection to it.
// It waits up to limit for another process that does the same.
func Open(path string, limit time.Duration, log hclog.Logger) (*net.UnixConn, net.Listener, error) {
	return open(path, limit, log, func() error { return nil })
}

// OpenSole is Open, but does not take the place of a process that has its control socket
// open, where only the path is gone: it waits up to limit for that process to make the path
// again, which [Remake] does.
func OpenSole(path string, limit time.Duration, log hclog.Logger) (*net.UnixConn, net.Listener, error) {
	said := false
	for began := time.Now(); ; time.Sleep(lockTick) {
		c, ln, err := open(path, limit, log, func() error { return unreachable(path) })
		var lost *lostError
		if !errors.As(err, &lost) || time.Since(began) > limit {
			return c, ln, err
		}
		if !said && time.Since(began) > lockNotice {
			said = true
			log.Warn("control socket: a process has it open, and its path is gone: waiting for the path", "path", path, "pid", lost.pid, "at most", limit)
		}
	}
}

// open is Open. free is called before a new listener takes the path, which leads to no
// process.
func open(path string, limit time.Duration, log hclog.Logger, free func() error) (*net.UnixConn, net.Listener, error) {
	unlock, err := lock(path, limit, log)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", explain(err))
	}
	defer unlock()
	c, err := Dial(path)
	switch {
	case err == nil:
		return c, nil, nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
	default:
		return nil, nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	if err := free(); err != nil {
		return nil, nil, err
	}
	ln, err := replace(path)
	if err != nil {
		return nil, nil, err // and no nil pointer in an interface
	}
	return nil, ln, nil
}

// replace binds a control socket at path, which leads to no process. The caller has the
// lock.
func replace(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return listen(path)
}

// lockTries bounds how often lock begins again: each time another process has cleaned up.
const lockTries = 100

// lock makes the folder of the control socket at path, and locks the file beside it.
func lock(path string, limit time.Duration, log hclog.Logger) (unlock func(), err error) {
	for range lockTries {
		if err = trust.MakeFolder(filepath.Dir(path)); err == nil {
			unlock, err = lockFile(path+".lock", limit, log)
		}
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return unlock, err
}

// Clean calls unlink, which removes the control socket at path, and removes the lock file
// beside it, and the folder where folder says so and it is empty. The caller has the socket
// open: until it closes it, no other file gets the number of its inode, by which unlink
// knows it. Where another process keeps the lock, Clean does nothing: that process replaces
// the socket.
func Clean(path string, folder bool, unlink func() error) error {
	unlock, err := lockFile(path+".lock", lockNotice, hclog.NewNullLogger())
	switch {
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	}
	defer unlock()
	if err := unlink(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil // another process's
	}
	if err := os.Remove(path + ".lock"); err == nil && folder {
		_ = os.Remove(filepath.Dir(path)) // it may hold other files, or be a volume
	}
	return nil
}

// CheckFolder returns an error if a user other than root, this process's or owner could
// replace the control socket at path.
func CheckFolder(path string, owner int) error { return trust.CheckFolder(filepath.Dir(path), owner) }

// Dial connects to a control socket. The path of an abstract one begins with "@".
func Dial(path string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}

// listen binds a control socket.
func listen(path string) (*net.UnixListener, error) {
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
	ul, ok := ln.(*net.UnixListener)
	if !ok { // can't be
		return nil, errors.Join(fmt.Errorf("control socket: a %T", ln), ln.Close())
	}
	return ul, nil
}

// explain says what to do about a folder or lock file that can't be made.
func explain(err error) error {
	var said *trust.Error
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

const (
	lockTick   = 10 * time.Millisecond
	lockNotice = 200 * time.Millisecond // a process has the lock for as long as a connect and a bind take
)

// lockFile makes the file at path and waits for an exclusive lock on it. The error matches
// [os.ErrNotExist] where another process has removed the file or the folder meanwhile.
func lockFile(path string, limit time.Duration, log hclog.Logger) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	fd, err := fdx.Number(f)
	said := false
	for began := time.Now(); err == nil; time.Sleep(lockTick) {
		err = os.NewSyscallError("flock", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
		waited := time.Since(began)
		if !said && errors.Is(err, unix.EWOULDBLOCK) && waited > lockNotice {
			said = true
			log.Warn("control socket: waiting for a lock", "file", path, "held by", lockHolder(f), "at most", limit)
		}
		switch {
		case err == nil:
			if err = sameFile(f, path); err == nil {
				return func() { _ = f.Close() }, nil // which gives back the lock
			}
		case errors.Is(err, unix.EINTR):
			err = nil
		case !errors.Is(err, unix.EWOULDBLOCK):
		case waited > limit:
			err = fmt.Errorf("%w: %s has the lock on %s for %v: end that process: %w", failure.Timeout, lockHolder(f), path, limit, err)
		default:
			err = nil
		}
	}
	_ = f.Close()
	return nil, err
}

// sameFile returns an error that matches [os.ErrNotExist] unless f is the file at path.
func sameFile(f *os.File, path string) error {
	own, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(own, there) {
		return fmt.Errorf("%s was replaced: %w", path, os.ErrNotExist)
	}
	return nil
}

// lockHolder names the process that has locked f (proc_locks(5)). A file system whose
// stat(2) names another device than the kernel's list (btrfs) leaves it unnamed.
func lockHolder(f *os.File) string {
	fi, err := f.Stat()
	locks, lerr := os.ReadFile("/proc/locks")
	if err == nil && lerr == nil {
		st := fi.Sys().(*syscall.Stat_t)
		file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
		for line := range strings.Lines(string(locks)) {
			if l := strings.Fields(line); len(l) > 5 && l[1] == "FLOCK" && l[5] == file {
				return "pid " + l[4]
			}
		}
	}
	return "another process"
}
