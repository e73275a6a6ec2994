package handoff

import (
	"errors"
	"net"
	"os"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// unixPath returns the path that a unix socket is bound to, or "".
func unixPath(addr net.Addr) string {
	if u, ok := addr.(*net.UnixAddr); ok && u.Name != "" && u.Name[0] != '@' {
		return u.Name
	}
	return ""
}

// unlink removes the path of a unix socket, if it still is the one that the
// socket was bound to. Nothing else in the package removes paths of sockets
// that are handed on: the last owner does, when it closes the socket for good.
func unlink(e *wire.Socket) error {
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
