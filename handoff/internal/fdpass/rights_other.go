//go:build !linux

package fdpass

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

const rightsSpace = 0

var errUnsupported = fmt.Errorf("passing descriptors on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func supported() error { return errUnsupported }

func rights([]int) []byte { return nil }

func parseRights([]byte, int) (fds []int, truncated bool, err error) {
	return nil, false, errUnsupported
}

func truncatedError(*net.UnixConn) error { return errUnsupported }

func sendError(err error, _ int) error { return err }
