package load_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/internal/load"
)

func TestParseLine(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"baton v1 3 4711", "v1 q1 more", "v1 q1 last"} {
		if got, err := load.ParseLine(line); err != nil || got != line {
			t.Errorf("ParseLine(%q) = %q, %v, want the same", line, got, err)
		}
	}
	for _, line := range []string{"", "baton", "baton v1 x 1", "baton v1 -1 1", "v1 q1", "v1 q1 never", "v1 q1 last more"} {
		if _, err := load.ParseLine(line); load.Classify(err) != load.Wrong {
			t.Errorf("ParseLine(%q): %v, want a wrong answer", line, err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("baton v1 3 4711")
	f.Add("v1 q1 more")
	f.Add("baton baton last")
	f.Fuzz(func(t *testing.T, line string) {
		once, err := load.ParseLine(line)
		if err != nil {
			return
		}
		if twice, err := load.ParseLine(once); err != nil || twice != once {
			t.Errorf("ParseLine(%q) = %q, %v, want the same", once, twice, err)
		}
	})
}
