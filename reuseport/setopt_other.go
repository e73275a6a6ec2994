//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package reuseport

import (
	"errors"
	"fmt"
	"runtime"
)

func setReusePort(uintptr) error {
	return fmt.Errorf("SO_REUSEPORT on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
