//go:build !linux

package operate

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("control socket on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Open returns an error that matches [errors.ErrUnsupported].
func Open(string) (*net.UnixConn, net.Listener, error) { return nil, nil, unsupported() }

// Dial returns an error that matches [errors.ErrUnsupported].
func Dial(string) (*net.UnixConn, error) { return nil, unsupported() }

// Listen returns an error that matches [errors.ErrUnsupported].
func Listen(string) (net.Listener, error) { return nil, unsupported() }

// ProcessFD returns an error that matches [errors.ErrUnsupported].
func ProcessFD() (int, error) { return -1, unsupported() }
