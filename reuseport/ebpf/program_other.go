//go:build !linux

package ebpf

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// Program does not exist here.
type Program struct{}

// New is not supported here.
func New() (*Program, error) {
	return nil, fmt.Errorf("eBPF on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Join is not supported here.
func (*Program) Join(syscall.Conn) error { return errors.ErrUnsupported }

// Away is not supported here.
func (*Program) Away(...syscall.Conn) error { return errors.ErrUnsupported }

// Left does nothing here.
func (*Program) Left(syscall.Conn) {}

// Migrates returns false here.
func (*Program) Migrates() bool { return false }

// Close does nothing here.
func (*Program) Close() error { return nil }
