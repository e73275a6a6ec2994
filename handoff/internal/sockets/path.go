package sockets

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// UnixPath returns the path that a unix socket is bound to, or "".
func UnixPath(addr net.Addr) string {
	if u, ok := addr.(*net.UnixAddr); ok && u.Name != "" && u.Name[0] != '@' {
		return u.Name
	}
	return ""
}

// Unlink removes the path of a unix socket, if it still is the one that the
// socket was bound to. The last owner of a socket calls it, when it closes the
// socket for good.
func Unlink(e *wire.Socket) error {
	if e.PathIno == 0 {
		return nil
	}
	dev, ino, err := pathID(e.Bound)
	if errors.Is(err, os.ErrNotExist) || err == nil && (dev != e.PathDev || ino != e.PathIno) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(e.Bound)
}

// RemoveStale removes the path of a unix socket that no process answers at: its
// owner was killed. It reports whether it did.
func RemoveStale(k Key, err error) bool {
	switch k.Network {
	case "unix", "unixpacket", "unixgram":
	default:
		return false
	}
	if !errors.Is(err, syscall.EADDRINUSE) || k.Address == "" || k.Address[0] == '@' {
		return false
	}
	fi, err := os.Lstat(k.Address)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.DialUnix(k.Network, nil, &net.UnixAddr{Name: k.Address, Net: k.Network})
	if err == nil {
		_ = c.Close() // a process serves there
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(k.Address) == nil
}
