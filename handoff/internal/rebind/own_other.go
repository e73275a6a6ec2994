//go:build !linux

package rebind

import (
	"context"
	"net"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// Reserve needs Linux.
func Reserve(context.Context, sockets.Key, sockets.Handle, *net.ListenConfig) (*Own, error) {
	return nil, failure.Unsupported
}

// Join needs Linux.
func (o *Own) Join() error { return failure.Unsupported }

func inode(syscall.Conn) uint64 { return 0 }
