package reuseport

import (
	"net"
	"syscall"

	"github.com/seed-11c92bf9/baton/internal/probes"
)

// IsProbe reports whether c is a connection that this process has made to its own
// group.
func IsProbe(_ syscall.Conn, c net.Conn) bool { return probes.Swallow(c) }
