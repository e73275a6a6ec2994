package handoffhttp_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// TestFrames tells frames apart however they are cut.
func TestFrames(t *testing.T) {
	t.Parallel()
	all := []byte("\x00\x00\x00\x04\x01\x00\x00\x00\x00" + // SETTINGS, acknowledged
		"\x00\x00\x03\x01\x05\x80\x00\x00\x07abc" + // HEADERS, with the reserved bit
		"\x00\x01\x00\x00\x00\x00\x00\x00\x07" + strings.Repeat("d", 256) + // DATA
		"\x00\x00\x08\x06\x01\x00\x00\x00\x00pingpong")
	want := []string{
		"4/1 0 0000000000000000", "1/5 7 6162630000000000",
		"0/0 7 6464646464646464", "6/1 0 70696e67706f6e67",
	}
	for cut := range all {
		got, between := handoffhttp.Frames(all[:cut], all[cut:])
		if diff := cmp.Diff(want, got); diff != "" || !between {
			t.Fatalf("cut at %d: between frames %v (-want +got):\n%s", cut, between, diff)
		}
	}
	var single [][]byte
	for i := range all {
		single = append(single, all[i:i+1])
	}
	if got, _ := handoffhttp.Frames(single...); !cmp.Equal(want, got) {
		t.Errorf("byte by byte: %q", got)
	}
	for cut, between := range map[int]bool{0: true, 4: false, 9: true, 18: false, 20: false, 21: true} {
		if _, got := handoffhttp.Frames(all[:cut]); got != between {
			t.Errorf("after %d bytes between frames: %v, want %v", cut, got, between)
		}
	}
}
