package operate_test

import (
	"slices"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
)

// TestEach gives a subscriber of Subscribe every event from then on, in order, however
// many wait, and none after the last of the process.
func TestEach(t *testing.T) {
	t.Parallel()
	const n = 5000
	var s operate.Subscribers
	s.Publish(operate.Event{Value: -1})
	sub := s.Subscribe()
	var want, got []int
	for i := range n {
		s.Publish(operate.Event{Value: i})
		want = append(want, i)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sub.Each(func(e operate.Event) {
			if i, ok := e.Value.(int); ok {
				got = append(got, i)
			}
		})
	}()
	s.Publish(operate.Event{Value: n, Last: true})
	s.Publish(operate.Event{Value: n + 1})
	<-done
	if want = append(want, n); !slices.Equal(got, want) {
		t.Errorf("got %d events up to %v, want %d up to %d", len(got), got[len(got)-1], len(want), n)
	}
}

// TestPublishFrom has Each's function publish, as an event hook may.
func TestPublishFrom(t *testing.T) {
	t.Parallel()
	var s operate.Subscribers
	sub := s.Subscribe()
	s.Publish(operate.Event{})
	calls := 0
	sub.Each(func(operate.Event) {
		calls++
		s.Publish(operate.Event{Last: calls == 2})
	})
	if calls != 3 {
		t.Errorf("%d events, want 3", calls)
	}
}
