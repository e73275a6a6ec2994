package handoff

import (
	"context"
	"time"
)

// closedWithin waits until c is closed, for some time, and not longer than ctx. It
// reports whether c is closed.
func closedWithin(ctx context.Context, patience time.Duration, c <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-c:
		return true
	case <-ctx.Done():
	}
	select {
	case <-c: // whatever ctx says
		return true
	default:
		return false
	}
}
