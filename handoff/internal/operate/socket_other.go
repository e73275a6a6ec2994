//go:build !linux

package operate

import (
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

func unsupported() error {
	return fmt.Errorf("%w on %s: Linux is", failure.Unsupported, runtime.GOOS)
}

// Open returns an error that matches [errors.ErrUnsupported].
func Open(string, time.Duration, hclog.Logger) (*net.UnixConn, net.Listener, error) {
	return nil, nil, unsupported()
}

// OpenSole returns an error that matches [errors.ErrUnsupported].
func OpenSole(string, time.Duration, hclog.Logger) (*net.UnixConn, net.Listener, error) {
	return nil, nil, unsupported()
}

// Remake returns an error that matches [errors.ErrUnsupported].
func Remake(string, func() (bool, error), hclog.Logger) (*net.UnixListener, error) {
	return nil, unsupported()
}

// Clean returns an error that matches [errors.ErrUnsupported].
func Clean(string, bool, func() error) error { return unsupported() }

// CheckFolder returns an error that matches [errors.ErrUnsupported].
func CheckFolder(string, int) error { return unsupported() }

// Dial returns an error that matches [errors.ErrUnsupported].
func Dial(string) (*net.UnixConn, error) { return nil, unsupported() }
