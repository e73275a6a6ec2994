package supervisor_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	ms := func(all ...int) []time.Duration {
		var d []time.Duration
		for _, n := range all {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	for name, c := range map[string]struct {
		first, most int // ms
		limit       int
		random      float64
		want        []time.Duration
	}{
		"doubles up to the most": {100, 1000, 0, 0, ms(100, 200, 400, 800, 1000, 1000)},
		"jitter takes off":       {100, 1000, 0, 0.5, ms(75, 150, 300, 600, 750, 750)},
		"a limit":                {100, 1000, 2, 0, ms(100, 200)},
		"one delay":              {70, 70, 0, 0, ms(70, 70, 70, 70, 70, 70)},
	} {
		cfg := supervisor.Default("x")
		cfg.RestartDelay, cfg.RestartMaxDelay, cfg.RestartLimit = ms(c.first)[0], ms(c.most)[0], c.limit
		if diff := cmp.Diff(c.want, supervisor.Pauses(cfg, c.random, 6)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	// No number of restarts overflows.
	cfg := supervisor.Default("x")
	cfg.RestartMaxDelay = 1<<63 - 1
	for i, d := range supervisor.Pauses(cfg, 0.999, 200) {
		if d <= 0 {
			t.Fatalf("restart %d waits %v", i, d)
		}
	}
}
