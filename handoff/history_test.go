package handoff_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestHistory passes reports and totals down a line: the last 16 reports, with the
// linger of a predecessor when that has ended.
func TestHistory(t *testing.T) {
	t.Parallel()
	at := handoff.NewHistory()
	if reports, totals := at.Line(0); len(reports) != 0 || totals != nil {
		t.Errorf("before the predecessor's account: %+v, %+v, want nothing known", reports, totals)
	}
	if err := handoff.NewHistory().Pass(at); err != nil {
		t.Fatal(err)
	}
	for gen := uint64(2); gen <= 21; gen++ {
		at.Record(handoff.Report{Generation: gen, Outcome: handoff.OutcomeFailed})
		at.Record(handoff.Report{Generation: gen, Outcome: handoff.OutcomeCommitted, Started: time.Now()})
		next := handoff.NewHistory()
		if err := at.Pass(next); err != nil {
			t.Fatal(err)
		}
		next.Done(gen-1, 5)
		at = next
	}
	reports, totals := at.Line(7)
	if want := (handoff.Totals{Committed: 20, Failed: 20, Moved: 20*5 + 7}); totals == nil || *totals != want {
		t.Errorf("totals %+v, want %+v", totals, want)
	}
	if len(reports) != 16 {
		t.Fatalf("%d reports, want 16", len(reports))
	}
	for i, r := range reports {
		if r.Generation != uint64(14+i/2) {
			t.Errorf("report %d is of generation %d", i, r.Generation)
		}
		if committed := i%2 == 1; committed != (r.Outcome == handoff.OutcomeCommitted) || committed != (r.Moved == 5) || committed != (r.Durations.Linger > 0) {
			t.Errorf("report %d: %+v", i, r)
		}
	}
}

// TestHistorySize passes on as many reports as fit into a message.
func TestHistorySize(t *testing.T) {
	t.Parallel()
	at, next := handoff.NewHistory(), handoff.NewHistory()
	for gen := range uint64(3) {
		at.Record(handoff.Report{Generation: gen, Outcome: handoff.OutcomeFailed, Reason: strings.Repeat("x", 400<<10)})
	}
	if err := at.Pass(next); err != nil {
		t.Fatal(err)
	}
	reports, totals := next.Line(0)
	if len(reports) == 0 || len(reports) == 3 || reports[len(reports)-1].Generation != 2 || totals.Failed != 3 {
		t.Errorf("%d reports, totals %+v, want the last reports and all totals", len(reports), totals)
	}
}

// TestHistoryNewer leaves out the reports of a newer version: that with an unknown mode,
// or all where one is not readable. The totals stay.
func TestHistoryNewer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reports  string
		readable bool
		want     []handoff.Mode
	}{
		{`{"mode":"takeover"},{"mode":"teleport"},{"mode":"drain"}`, true, []handoff.Mode{handoff.Takeover, handoff.Drain}},
		{`{"mode":"takeover"},{"mode":4}`, false, nil},
	} {
		at := handoff.NewHistory()
		err := handoff.ReceiveHistory(at, `{"totals":{"committed":3},"reports":[`+tt.reports+`]}`)
		reports, totals := at.Line(0)
		var got []handoff.Mode
		for _, r := range reports {
			got = append(got, r.Mode)
		}
		if (err == nil) != tt.readable || !slices.Equal(got, tt.want) || totals == nil || totals.Committed != 3 {
			t.Errorf("%s: %v, modes %v, totals %+v, want %v and the totals", tt.reports, err, got, totals, tt.want)
		}
	}
}
