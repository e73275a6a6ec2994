//go:build !linux

package rebind

import (
	"context"
	"net"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// Reserve needs Linux.
func Reserve(context.Context, sockets.Key, sockets.Handle, *net.ListenConfig) (*Own, error) {
	return nil, failure.Unsupported
}

// ReserveBeside needs Linux.
func ReserveBeside(context.Context, sockets.Key, *net.ListenConfig, []int, bool) (*Own, error) {
	return nil, failure.Unsupported
}

// GiveUp needs Linux.
func GiveUp(context.Context, *sockets.Socket) (reuseport.Report, error) {
	return reuseport.Report{}, failure.Unsupported
}

// Join needs Linux.
func (o *Own) Join() error { return failure.Unsupported }

// ReserveUnix is not supported here.
func ReserveUnix(context.Context, sockets.Key, *net.ListenConfig) (*Own, error) {
	return nil, failure.Unsupported
}

// Foreign is not known here.
func Foreign(syscall.Conn) bool { return false }

func inode(syscall.Conn) uint64 { return 0 }
