package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// result is what was seen.
type result struct {
	Systemd  int    `json:"systemd"` // its version
	Upgrades int    `json:"upgrades"`
	Crashes  int    `json:"crashes"`
	Requests uint64 `json:"requests"` // answered or failed
	Failed   uint64 `json:"failed"`   // that must not have
	Refused  uint64 `json:"refused"`
	InFlight uint64 `json:"in_flight"` // failed, and a killed process had them
	InHand   uint64 `json:"in_hand"`   // likewise, taken from the kernel and not noted yet
	// Steps are what was done to the service, in order.
	Steps    []step         `json:"steps"`
	Targets  []targetResult `json:"targets"`
	Seconds  float64        `json:"seconds"`
	Problems []string       `json:"problems"`
}

// The ways in which sockets outlive a crash.
const (
	holdSocket = "socket unit"
	holdStore  = "descriptor store"
)

// The kinds of steps.
const (
	stepUpgrade = "systemctl reload"
	stepCrash   = "SIGKILL"
)

// step is an upgrade or a crash.
type step struct {
	Kind string `json:"kind"`
	Hold string `json:"hold"` // what holds the sockets
	// From and To are the main process before and after, as systemd knows it.
	From int `json:"from"`
	To   int `json:"to"`
	// Seconds is how long systemctl reload took, or how long after the kill a new
	// process answered.
	Seconds float64 `json:"seconds"`
}

// targetResult is the part of a kind of client while sockets are held in a way.
type targetResult struct {
	Name     string             `json:"name"`
	Hold     string             `json:"hold"`
	Requests uint64             `json:"requests"`
	Verdicts map[verdict]uint64 `json:"verdicts"`
	GapMS    float64            `json:"longest_gap_ms,omitempty"` // between two accepts
}

// count adds up what the clients have counted, and what became of the failures.
func (r *result) count(hold string, s load.Stats, failures []load.Failure, j *judge) {
	verdicts := make(map[string]map[verdict]uint64)
	for _, name := range slices.Sorted(maps.Keys(s.Targets)) {
		t := s.Targets[name]
		verdicts[name] = make(map[verdict]uint64)
		n := t.Questions + t.Failed
		r.Targets = append(r.Targets, targetResult{Name: name, Hold: hold, Requests: n, Verdicts: verdicts[name], GapMS: t.LongestGapMS})
		r.Requests += n
	}
	for _, f := range failures {
		v := j.judge(f)
		verdicts[f.Target][v]++
		switch v {
		case refused:
			r.Refused++
		case inFlight:
			r.InFlight++
		case inHand:
			r.InHand++
		default:
			r.Failed++
		}
		if v == failed || v == refused {
			r.problem("%s: after %.2f s: %s: %s: %s: %s", hold, f.Seconds, f.Target, f.Step, f.Class, f.Error)
		}
	}
}

func (r *result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// line is the last line.
func (r *result) line() string {
	return fmt.Sprintf("result: upgrades=%d crashes=%d requests=%d failed=%d refused=%d", r.Upgrades, r.Crashes, r.Requests, r.Failed, r.Refused)
}

func (r *result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeTable writes what was done to the service, and what its clients have seen
// of that.
func (r *result) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "SOCKETS HELD BY\tDONE TO THE SERVICE\tTIMES\tMEDIAN\tLONGEST\t")
	for i := range 4 {
		hold, kind := []string{holdSocket, holdStore}[i/2], []string{stepUpgrade, stepCrash}[i%2]
		var took []time.Duration
		for _, s := range r.Steps {
			if s.Kind == kind && s.Hold == hold {
				took = append(took, time.Duration(s.Seconds*float64(time.Second)))
			}
		}
		if len(took) == 0 {
			continue
		}
		slices.Sort(took)
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t\n", hold, kind, len(took), millis(took[len(took)/2]), millis(took[len(took)-1]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "SOCKETS HELD BY\tCLIENTS\tREQUESTS\tFAILED\tREFUSED\tDIED WITH A KILLED PROCESS\tLONGEST GAP\t")
	for _, v := range r.Targets {
		gap := "-"
		if v.GapMS > 0 {
			gap = millis(time.Duration(v.GapMS * float64(time.Millisecond)))
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t\n", v.Hold, v.Name, v.Requests, v.Verdicts[failed], v.Verdicts[refused], v.Verdicts[inFlight]+v.Verdicts[inHand], gap)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Crashes > 0 {
		fmt.Fprintf(w, "\nA request that died with a killed process is none that failed: that process had its connection (%d noted it,\n"+
			"%d were in its hand). Connections in the queue, and those that arrived before the next process started, were served.\n", r.InFlight, r.InHand)
	}
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
