//go:build !linux

package reuseport

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

func queueLen(syscall.Conn) (n, backlog int, err error) {
	return 0, 0, fmt.Errorf("queue length on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func halfOpen(syscall.Conn) (n int, err error) {
	return 0, fmt.Errorf("half-open handshakes on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
