package systemd

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// kindOf returns the kind of a socket of systemd's, and sets the close-on-exec flag,
// which systemd does not: no other goroutine has started a process yet.
func kindOf(fd int) (wire.SocketKind, error) {
	unix.CloseOnExec(fd)
	info, err := fdx.Info(fd)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errNoSocket, err)
	case info.Listening:
		return wire.KindListener, nil
	case info.Type == unix.SOCK_DGRAM:
		return wire.KindPacket, nil
	}
	return 0, fmt.Errorf("%w: with Accept=yes systemd accepts the connections itself: remove it from the socket unit", errNoSocket)
}
