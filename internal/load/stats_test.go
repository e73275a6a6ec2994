package load_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

func TestLongestGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := load.NewRecorder(
			load.Target{Name: "a", Kind: load.Once}, load.Target{Name: "b", Kind: load.HTTP},
			load.Target{Name: "open", Kind: load.Keep})
		for _, step := range []struct {
			after  time.Duration
			target string
		}{{0, "a"}, {0, "b"}, {3, "a"}, {4, "b"}, {20, "a"}, {1, "b"}, {1, "open"}} {
			time.Sleep(step.after * time.Millisecond)
			r.Accepted(step.target, "v1", 1)
		}
		s := r.Snapshot()
		for name, want := range map[string]float64{"a": 24, "b": 21, "open": 0} {
			if got := s.Targets[name].LongestGapMS; got != want {
				t.Errorf("longest gap of %s: %v ms, want %v", name, got, want)
			}
		}
		if s.LongestGapMS != 24 {
			t.Errorf("longest gap: %v ms, want 24", s.LongestGapMS)
		}
		// An open gap counts; one after the stop does not.
		time.Sleep(50 * time.Millisecond)
		if got := r.Snapshot().LongestGapMS; got != 52 {
			t.Errorf("longest gap while it is open: %v ms, want 52", got)
		}
		r.Stop()
		time.Sleep(time.Second)
		if got := r.Snapshot().LongestGapMS; got != 52 {
			t.Errorf("longest gap after the stop: %v ms, want 52", got)
		}
	})
}

func TestCrossed(t *testing.T) {
	t.Parallel()
	r := load.NewRecorder(load.Target{Name: "a", Kind: load.Once})
	for range 4 {
		r.Opened()
	}
	r.Accepted("a", "v1", 1)
	r.Closed(1, nil) // before the upgrade
	r.Accepted("a", "v2", 2)
	r.Closed(1, nil)    // across it
	r.Closed(1, io.EOF) // across it, but not to its end
	r.Closed(2, nil)    // after it
	if s := r.Snapshot(); s.Crossed != 1 || s.Open != 0 {
		t.Errorf("crossed %d, open %d, want 1 and 0", s.Crossed, s.Open)
	}
}

func TestSamplesAreBounded(t *testing.T) {
	t.Parallel()
	r := load.NewRecorder(load.Target{Name: "a", Kind: load.Once})
	for range 100 {
		r.Fail("a", io.EOF)
	}
	s := r.Snapshot()
	if s.Failed != 100 || s.Failures[load.EOF] != 100 || s.Connections != 100 {
		t.Errorf("failed %d of %d, by class %v, want 100 of 100, all eof", s.Failed, s.Connections, s.Failures)
	}
	if len(s.Samples) != 10 {
		t.Errorf("%d samples, want 10", len(s.Samples))
	}
}
