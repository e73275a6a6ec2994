package handoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestClosedWithin gives a wait up before its patience is over, and one that has nothing
// to wait for.
func TestClosedWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, never, closed := time.Now(), make(chan struct{}), make(chan struct{})
		close(closed)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if handoff.ClosedWithin(ctx, time.Minute, never) || time.Since(start) != time.Second {
			t.Errorf("given up after a second: it is over, or ended after %v", time.Since(start))
		}
		for range 20 { // select chooses at random
			if !handoff.ClosedWithin(ctx, time.Minute, closed) {
				t.Error("given up, with nothing to wait for: it is not over")
			}
		}
		if handoff.ClosedWithin(t.Context(), time.Minute, never) || time.Since(start) != time.Minute+time.Second {
			t.Errorf("never over: it is, or the wait ended after %v", time.Since(start))
		}
	})
}
