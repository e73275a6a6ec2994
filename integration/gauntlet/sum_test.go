package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestSum adds up two results that were written and read.
func TestSum(t *testing.T) {
	one := func(seed uint64, upgrades int, requests, lost uint64, mode handoff.Mode) string {
		t.Helper()
		r := newResult(seed)
		m := newModeResult(mode)
		m.Upgrades, m.Requests, m.Lost = upgrades, requests, lost
		m.Kinds["udp"] = kindResult{served: requests}
		m.Verdicts[served] = requests
		m.Faults["full disk"], m.Missed["SIGTERM, paused"] = 2, 1
		r.add(m)
		r.origin.Command = "gauntlet -seed 7"
		path := filepath.Join(t.TempDir(), "r.json")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.writeJSON(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	all, err := readResults([]string{one(1, 6000, 5_000_000, 0, handoff.Drain), one(2, 4000, 5_000_000, 0, handoff.Inherit), one(3, 1, 7, 0, handoff.Drain)})
	if err != nil {
		t.Fatal(err)
	}
	whole := sum(all)
	want := map[handoff.Mode]int{handoff.Inherit: 4000, handoff.Drain: 6001}
	got := make(map[handoff.Mode]int)
	for _, m := range whole.Modes {
		got[m.Mode] = m.Upgrades
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("upgrades by mode (-want +got):\n%s", diff)
	}
	if whole.Requests != 10_000_007 || whole.Faults != 6 || whole.Modes[1].Kinds["udp"][served] != 5_000_007 {
		t.Errorf("sum = %+v, %+v", whole, whole.Modes[1])
	}
	var b strings.Builder
	if err := writeReport(&b, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10001 upgrades, 10000007 requests and 6 faults in 3 runs: 0 lost.", "without a loss: reached.", "gauntlet -seed 7"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, b.String())
		}
	}
	more, err := readResults([]string{one(4, 1, 1, 1, handoff.Inherit)})
	if err != nil {
		t.Fatal(err)
	}
	if got := reached(sum(append(all, more...))); got != "missed" {
		t.Errorf("with a loss the goal is %s, want missed", got)
	}
}
