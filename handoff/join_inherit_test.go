package handoff_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestParentDied has the end of the parent heard before and after that of the
// conversation with it.
func TestParentDied(t *testing.T) {
	ended := fmt.Errorf("%w: the conversation ended", handoff.ErrPredecessorDied)
	refused := errors.New("refused")
	const never = time.Hour
	for _, tt := range []struct {
		name  string
		err   error
		after time.Duration // until the parent's end is heard
		want  bool
	}{
		{"joined", nil, 0, false},
		{"heard before", ended, 0, true},
		{"heard before, another error", refused, 0, true},
		{"heard after", ended, time.Second, true},
		{"never heard", ended, never, false},
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
