package handoffhttp_test

import (
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

func FuzzState(f *testing.F) {
	f.Add(handoffhttp.State(true, time.Minute, 4, "GE"))
	f.Add(handoffhttp.State(false, 0, 0, ""))
	f.Add([]byte{1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		idle, silent, strip, begun, err := handoffhttp.DecodeState(b)
		if err != nil {
			return
		}
		if silent < 0 || strip > 4 || len(begun) > 4 {
			t.Fatalf("DecodeState(%x) = %v, %v, %q", b, silent, strip, begun)
		}
		// A uvarint may be longer than it has to be, so the bytes may differ.
		idle2, silent2, strip2, begun2, err := handoffhttp.DecodeState(handoffhttp.State(idle, silent, strip, begun))
		if idle2 != idle || silent2 != silent || strip2 != strip || begun2 != begun || err != nil {
			t.Errorf("a second round: %v, %v, %v, %q, %v, want %v, %v, %v, %q", idle2, silent2, strip2, begun2, err, idle, silent, strip, begun)
		}
	})
}

// TestStateGolden keeps the encoding: other versions of the package read it.
func TestStateGolden(t *testing.T) {
	t.Parallel()
	const want = "\x01\x04\xac\x02GE"
	if got := string(handoffhttp.State(true, 300*time.Millisecond, 4, "GE")); got != want {
		t.Errorf("state %q, want %q", got, want)
	}
}
