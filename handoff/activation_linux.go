package handoff

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
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
		s.kind = wire.KindListener
	case info.Type == unix.SOCK_DGRAM:
		s.kind = wire.KindPacket
	default:
		err = fmt.Errorf("%w: Accept=yes is for another kind of service", errNoSocket)
	}
	if err != nil {
		return s, errors.Join(err, fdx.Close(in.FD))
	}
	if s.handle, err = sockets.Open(sockets.Key{Kind: s.kind, Name: in.Name}, in.FD); err != nil {
		return s, err
	}
	switch h := s.handle.(type) {
	case net.Listener:
		s.addr = h.Addr()
	case net.PacketConn:
		s.addr = h.LocalAddr()
	}
	return s, nil
}
