//go:build !linux

package sockets

import (
	"net"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// acceptNow is not supported here.
func acceptNow(*net.UnixListener) (net.Conn, error) { return nil, failure.Unsupported }
