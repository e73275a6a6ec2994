package handoffdebug

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// view is what the page shows: a Status with its numbers in words.
type view struct {
	Title   string
	Good    bool // the process serves
	Refresh int  // seconds; 0 is never

	handoff.Status
	Now      moment
	Began    moment
	Up       string
	Built    string
	Ends     string // the linger; empty if there is no limit
	Step     *step
	Rows     []socket
	Stored   bool // systemd's store has one of them
	Old      []predecessor
	Attempts []attempt // newest first
}

// moment is a time for people and for machines.
type moment struct{ Text, Machine string }

func momentOf(t time.Time) moment {
	return moment{Text: t.Local().Format("2006-01-02 15:04:05 MST"), Machine: t.Format(time.RFC3339)}
}

// step is the upgrade that is under way.
type step struct {
	What string
	To   string
}

// socket is a row of the table of sockets.
type socket struct {
	Name, Kind, Network, Address       string
	Queue, Backlog, HalfOpen, Accepted string
	Full                               bool // a half of the queue or more is taken
	Stored                             string
}

// predecessor is a row of the table of predecessors.
type predecessor struct {
	handoff.Process
	Ends string
}

// attempt is an upgrade.
type attempt struct {
	*handoff.Report
	Began    moment
	Good     bool
	From, To string
	Took     string
	Linger   string // empty while it is not over
	Reasons  string // of the connections that were cut, with their numbers
	Why      string // it is not committed
	Phases   []phase
}

// phase is a part of an upgrade, at a place in a bar of 1000 units.
type phase struct {
	Name, Took string
	At, Width  int
}

func newView(s *handoff.Status, now time.Time, refresh int) *view {
	v := &view{
		Title: or(s.Name, "server"), Good: s.State == handoff.StateServing, Refresh: refresh, Status: *s,
		Now: momentOf(now), Began: momentOf(s.Started), Up: short(s.Uptime), Built: s.Build,
	}
	if s.Remaining >= 0 && !v.Good {
		v.Ends = short(s.Remaining)
	}
	if u := s.Upgrade; u != nil {
		v.Step = &step{What: words(u)}
		if u.Report != nil && u.Report.Successor.PID != 0 {
			v.Step.To = process(u.Report.Successor)
		}
	}
	for _, k := range s.Sockets {
		v.Rows, v.Stored = append(v.Rows, socketRow(k)), v.Stored || k.Stored
	}
	for _, p := range s.Lingering {
		row := predecessor{Process: p, Ends: "when its connections are done"}
		if p.Remaining >= 0 {
			row.Ends = "within " + short(p.Remaining)
		}
		v.Old = append(v.Old, row)
	}
	for i := range slices.Backward(s.Upgrades) {
		v.Attempts = append(v.Attempts, newAttempt(&s.Upgrades[i]))
	}
	return v
}

func socketRow(k handoff.SocketStatus) socket {
	row := socket{
		Name: or(k.Name, "–"), Kind: k.Kind, Network: or(k.Network, "–"), Address: or(k.Address, "–"),
		Queue: count(k.Queue), Backlog: count(k.Backlog), HalfOpen: count(k.HalfOpen), Accepted: "–",
		Full: k.Backlog > 0 && k.Queue*2 >= k.Backlog, Stored: "no",
	}
	if k.Stored {
		row.Stored = "yes"
	}
	if k.Kind == "listener" {
		row.Accepted = fmt.Sprint(k.Accepted)
	}
	return row
}

func newAttempt(r *handoff.Report) attempt {
	a := attempt{
		Report: r, Began: momentOf(r.Started), Good: r.Outcome == handoff.OutcomeCommitted,
		From: process(r.Predecessor), To: process(r.Successor), Took: short(r.Durations.Total), Why: strings.TrimPrefix(r.Reason, "handoff: "),
	}
	for _, reason := range slices.Sorted(maps.Keys(r.CutBy)) {
		a.Reasons += fmt.Sprintf(", %d %s", r.CutBy[reason], reason)
	}
	a.Reasons = strings.TrimPrefix(a.Reasons, ", ")
	d := &r.Durations
	if d.Linger > 0 {
		a.Linger = short(d.Linger)
	}
	at := 0
	for _, p := range []struct {
		name string
		took time.Duration
	}{
		{"start", d.Start},
		{"transfer", d.Transfer},
		{"warming", d.Warming},
		{"probation", d.Probation},
		{"commit", d.Commit},
	} {
		if p.took <= 0 || d.Total <= 0 {
			continue
		}
		// What took a moment is still to be seen; the last one may not run over.
		width := min(max(2, int(1000*float64(p.took)/float64(d.Total))), max(0, 1000-at))
		a.Phases = append(a.Phases, phase{Name: p.name, Took: short(p.took), At: at, Width: width})
		at += width
	}
	return a
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func count(n int) string {
	if n < 0 {
		return "–"
	}
	return fmt.Sprint(n)
}

func process(p handoff.Process) string {
	if p.PID == 0 {
		return "–"
	}
	if p.Version == "" {
		return fmt.Sprint("pid ", p.PID)
	}
	return fmt.Sprintf("%s (pid %d)", p.Version, p.PID)
}

// words says what an event means for an upgrade that is under way.
func words(e *handoff.Event) string {
	switch e.Kind {
	case handoff.EventWaiting:
		return e.Reason
	case handoff.EventUpgradeStarted:
		return "a successor is on its way"
	case handoff.EventTransfer:
		return "sockets and state are passed on"
	case handoff.EventWarming:
		return "the successor prepares itself"
	case handoff.EventPaused:
		return "probation: the successor accepts; it can still be rolled back"
	case handoff.EventCommitting:
		return "it commits"
	}
	return string(e.Kind)
}

// short is a duration with as much detail as a person needs.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
