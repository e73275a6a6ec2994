package handoff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// activate makes a listener or a packet connection of a descriptor, which it
// takes.
func activate(in sdnotify.Inherited) (activated, error) {
	// systemd passes descriptors on without the flag, and before any other
	// goroutine of the program starts a process it should be there.
	unix.CloseOnExec(in.FD)
	s := activated{name: in.Name}
	info, err := fdx.Info(in.FD)
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", errNoSocket, err)
	case info.Listening:
		if s.ln, err = fdx.Listener(in.FD, in.Name); err == nil {
			s.addr = s.ln.Addr()
		}
		return s, err
	case info.Type == unix.SOCK_DGRAM:
		if s.pc, err = fdx.PacketConn(in.FD, in.Name); err == nil {
			s.addr = s.pc.LocalAddr()
		}
		return s, err
	default:
		err = fmt.Errorf("%w: Accept=yes is for another kind of service", errNoSocket)
	}
	return s, errors.Join(err, fdx.Close(in.FD))
}
