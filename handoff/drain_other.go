//go:build !linux

package handoff

import (
	"net"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

func checkMember(int) error { return supported() }

func hasJoined(wire.SocketKind, int) bool { return false }

func inodeOf(int) uint64 { return 0 }

func holds(int, []uint64) bool { return false }

func openLate(sockets.Key, session.Item, *net.ListenConfig) (sockets.Handle, func() error, error) {
	return nil, nil, supported()
}
