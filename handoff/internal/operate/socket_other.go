//go:build !linux

package operate

import (
	"fmt"
	"net"
	"runtime"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

func unsupported() error {
	return fmt.Errorf("%w on %s: Linux is", failure.Unsupported, runtime.GOOS)
}

// Open returns an error that matches [errors.ErrUnsupported].
func Open(string) (*net.UnixConn, net.Listener, error) { return nil, nil, unsupported() }

// Dial returns an error that matches [errors.ErrUnsupported].
func Dial(string) (*net.UnixConn, error) { return nil, unsupported() }
