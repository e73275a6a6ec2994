//go:build !linux

package handoff

import (
	"net"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

const msgTrunc = 0

func checkMember(int) error { return unsupported() }

func hasJoined(wire.SocketKind, int) bool { return false }

func inodeOf(int) uint64 { return 0 }

func holds(int, []uint64) bool { return false }

func openLate(key, session.Item, *net.ListenConfig) (net.PacketConn, func() error, error) {
	return nil, nil, unsupported()
}
