package handoffhttp_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// TestProbe shows that the facts hold for the net/http at hand. Where they
// don't, connections stop moving, and this test is the one to look at.
func TestProbe(t *testing.T) {
	t.Parallel()
	size, err := handoffhttp.Probe()
	if err != nil || size != 4096 {
		t.Errorf("probe() = %d, %v, want 4096, nil", size, err)
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := handoffhttp.Probe(); err != nil {
			b.Fatal(err)
		}
	}
}
