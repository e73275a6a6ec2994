package handoff_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestParentDied ends the parent before and after the conversation with it.
func TestParentDied(t *testing.T) {
	ended := fmt.Errorf("%w: the conversation ended", handoff.ErrPredecessorDied)
	refused := errors.New("refused")
	const never = time.Hour
	for _, tt := range []struct {
		name  string
		err   error
		after time.Duration // until tableflip reports the parent's end
		want  bool
	}{
		{"joined", nil, 0, false},
		{"reported before", ended, 0, true},
		{"reported before, another error", refused, 0, true},
		{"reported after", ended, time.Second, true},
		{"never reported", ended, never, false},
		{"refused, and the parent lives", refused, never, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gone := make(chan struct{})
				time.AfterFunc(tt.after, func() { close(gone) })
				synctest.Wait()
				if tt.after == 0 {
					<-gone
				}
				start := time.Now()
				if got := handoff.ParentDied(tt.err, gone, handoff.HangTimeout); got != tt.want {
					t.Errorf("ParentDied() = %t, want %t", got, tt.want)
				}
				if took := time.Since(start); !errors.Is(tt.err, handoff.ErrPredecessorDied) && took > 0 {
					t.Errorf("it took %v, and there was nothing to wait for", took)
				}
			})
		})
	}
}
