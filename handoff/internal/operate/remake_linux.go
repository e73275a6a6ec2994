package operate

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// A control socket can lose its path: programs that remove old files (systemd-tmpfiles(8),
// tmpreaper(8)) and the end of a login session, which removes $XDG_RUNTIME_DIR, do not ask
// whether a process listens there.

// Remake binds a new control socket at path, and makes its folder, where path leads
// nowhere, or to a socket of this user that no process has. It returns nil where present
// reports that path leads to the socket of this process, whose times it renews: what
// removes old files looks at those. An error says that the path is another process's,
// which keeps it.
func Remake(path string, present func() (bool, error), log hclog.Logger) (*net.UnixListener, error) {
	switch here, err := present(); {
	case errors.Is(err, os.ErrPermission): // a process that has dropped its user since New
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", explain(err))
	case here:
		renew(path)
		return nil, nil
	}
	unlock, err := lock(path, lockNotice, log)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", explain(err))
	}
	defer unlock()
	if here, err := present(); here || err != nil {
		return nil, err
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	return replace(path)
}

// vacant returns an error unless path leads nowhere, or to a socket of this user that no
// process has.
func vacant(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: the path of the control socket, %s, leads to a file of another user, which stays: remove it, or choose another ControlSocket", failure.PeerRefused, path)
	}
	c, err := Dial(path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	defer c.Close() // nothing was sent
	cred, err := fdx.PeerCred(c)
	if err != nil {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	return fmt.Errorf("%w: pid %d, of uid %d, serves the control socket at %s in place of this process, pid %d: end one of the two services, or give it another Name", syscall.EADDRINUSE, cred.PID, cred.UID, path, os.Getpid())
}

// renewal is how old the times of a control socket and of its lock file become. What
// removes old files waits for days.
const renewal = time.Hour

// renew sets the times of a control socket and of its lock file, once in a while. Where
// that fails, Remake makes them again.
func renew(path string) {
	fi, err := os.Lstat(path)
	if err != nil || time.Since(fi.ModTime()) < renewal {
		return
	}
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, now, unix.AT_SYMLINK_NOFOLLOW)
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path+".lock", now, unix.AT_SYMLINK_NOFOLLOW)
}

// A lostError names a process whose control socket has no path any more.
type lostError struct {
	path string
	pid  int
}

func (e *lostError) Error() string {
	return fmt.Sprintf("control socket %s: pid %d has it open, and its path was removed: this process can't join that one, and would be a second service beside it: end pid %d, or send it its upgrade signal", e.path, e.pid, e.pid)
}

// Unwrap returns [syscall.EADDRINUSE].
func (e *lostError) Unwrap() error { return syscall.EADDRINUSE }

// unreachable returns a lostError if a process has the control socket at path open, to
// which path does not lead.
func unreachable(path string) error {
	all := procs.Listeners(func(p string) bool { return p == path })
	if len(all) == 0 {
		return nil
	}
	return &lostError{path, all[0].PID}
}
