package sockets_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// TestShared has ten callers come while a run is under way: they get the result of one
// run, which begins after they have come.
func TestShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s sockets.Shared
		release := make(chan struct{})
		runs := 0 // only one at a time
		run := func() int {
			runs++
			n := runs
			<-release
			return n
		}
		var callers sync.WaitGroup
		callers.Go(func() {
			if got := s.Get(run); got != 1 {
				t.Errorf("the first caller got run %d", got)
			}
		})
		synctest.Wait()
		for range 10 {
			callers.Go(func() {
				if got := s.Get(run); got != 2 {
					t.Errorf("a caller that came during run 1 got run %d, want 2", got)
				}
			})
		}
		synctest.Wait()
		if runs != 1 {
			t.Errorf("%d runs at once", runs)
		}
		close(release)
		callers.Wait()
		if got := s.Get(run); got != 3 {
			t.Errorf("a later caller got run %d, want 3", got)
		}
	})
}
