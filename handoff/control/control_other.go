//go:build !linux

package control

import (
	"context"
	"fmt"
	"runtime"

	"github.com/seed-11c92bf9/baton/handoff"
)

// supported reports why there are no control sockets here.
func supported() error {
	return fmt.Errorf("%w on %s: Linux is", handoff.ErrUnsupported, runtime.GOOS)
}

func awaitEnd(context.Context, int) error { return supported() }
