package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// An event is an upgrade.
type event struct {
	Version uint32        `json:"version"`
	Trigger time.Duration `json:"trigger"`
	First   time.Duration `json:"first"` // answer of the new version
	Last    time.Duration `json:"last"`  // answer of an older one
}

// times are latencies, in milliseconds.
type times struct {
	Requests int     `json:"requests"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	P999     float64 `json:"p99.9"`
	Max      float64 `json:"max"`
}

// A row is what was measured of a peer on a network. Times are in milliseconds,
// memory is in bytes.
type row struct {
	Peer         string             `json:"peer"`
	What         string             `json:"what"`
	How          string             `json:"how"` // an upgrade is triggered
	Release      string             `json:"release,omitempty"`
	RTT          float64            `json:"rtt"`
	Upgrades     int                `json:"upgrades"`
	Requests     int                `json:"requests"`
	Failed       int                `json:"failed"`
	Unseen       int                `json:"unseen"` // of the failed: on a connection that seemed open
	ByKind       map[string]int     `json:"failed_by_kind"`
	ByClass      map[load.Class]int `json:"failed_by_class"`
	Sample       string             `json:"sample,omitempty"` // of a failure
	Steady       times              `json:"steady"`
	Around       times              `json:"around"`
	Ratio        map[string]float64 `json:"around_over_steady,omitempty"`
	Gap          float64            `json:"longest_accept_gap"`
	GapBase      float64            `json:"longest_accept_gap_steady"`
	First        []float64          `json:"first_answer"` // of each upgrade
	Last         []float64          `json:"last_answer"`  // of the old one
	PerSecond    float64            `json:"requests_per_second,omitempty"`
	MemorySteady uint64             `json:"memory_steady"`
	MemoryPeak   uint64             `json:"memory_peak"`
	Error        string             `json:"error,omitempty"`
	records      []record
	events       []event
}

// around is how far from the moments of an upgrade its surroundings go.
const around = 500 * time.Millisecond

var errNoUpgrade = errors.New("the new version has not answered")

// evaluate counts. What was due before from is left out of the latencies.
func (r *row) evaluate(records []record, from time.Duration, events []event) error {
	slices.SortFunc(records, func(a, b record) int { return int(a.end() - b.end()) })
	for i := range events {
		e := &events[i]
		until := time.Duration(1 << 62)
		if i+1 < len(events) {
			until = events[i+1].Trigger
		}
		for j := range records {
			rec := &records[j]
			at := rec.end()
			switch {
			case rec.failed() || at < e.Trigger:
			case rec.Version == e.Version && e.First == 0:
				e.First = at
			case rec.Version < e.Version && at < until:
				e.Last = at
			}
		}
		if e.First == 0 {
			return fmt.Errorf("upgrade %d: %w", i+1, errNoUpgrade)
		}
		e.Last = max(e.Last, e.Trigger) // it may never have answered again
		r.First = append(r.First, milliseconds(e.First-e.Trigger))
		r.Last = append(r.Last, milliseconds(e.Last-e.Trigger))
	}
	r.Upgrades, r.Requests = len(events), len(records)
	r.records, r.events = records, events
	r.ByKind, r.ByClass = make(map[string]int), make(map[load.Class]int)
	var near, far []time.Duration
	for i := range records {
		rec := &records[i]
		if rec.failed() {
			r.Failed++
			r.ByKind[rec.Kind.String()]++
			r.ByClass[rec.Class]++
			if !rec.Seen {
				r.Unseen++
			}
			continue
		}
		switch {
		case isNear(rec.Due, events):
			near = append(near, rec.Took)
		case rec.Due > from && isFar(rec.Due, events):
			far = append(far, rec.Took)
		}
	}
	r.Around, r.Steady = summary(near), summary(far)
	if r.Steady.Requests > 0 {
		r.Ratio = map[string]float64{
			"p50": r.Around.P50 / r.Steady.P50, "p99": r.Around.P99 / r.Steady.P99,
			"p99.9": r.Around.P999 / r.Steady.P999, "max": r.Around.Max / r.Steady.Max,
		}
	}
	r.gaps(from)
	return nil
}

// isNear reports whether a moment is close to one of an upgrade's.
func isNear(at time.Duration, events []event) bool {
	return slices.ContainsFunc(events, func(e event) bool {
		return slices.ContainsFunc([]time.Duration{e.Trigger, e.First, e.Last}, func(m time.Duration) bool {
			return m-around <= at && at < m+around
		})
	})
}

// isFar reports whether a moment is out of every upgrade and its surroundings.
func isFar(at time.Duration, events []event) bool {
	return !slices.ContainsFunc(events, func(e event) bool {
		return e.Trigger-around <= at && at < max(e.First, e.Last)+around
	})
}

// gaps finds the longest time between two answers to new connections.
func (r *row) gaps(from time.Duration) {
	last := time.Duration(0)
	for i := range r.records {
		rec := &r.records[i]
		if rec.Kind != short || rec.failed() {
			continue
		}
		at := rec.end()
		if gap := milliseconds(at - last); last > from {
			if isFar(last, r.events) && isFar(at, r.events) {
				r.GapBase = max(r.GapBase, gap)
			} else {
				r.Gap = max(r.Gap, gap)
			}
		}
		last = at
	}
}

func summary(all []time.Duration) times {
	slices.Sort(all)
	at := func(part float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return milliseconds(all[min(len(all)-1, int(part*float64(len(all))))])
	}
	return times{Requests: len(all), P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// result is what the program has measured.
type result struct {
	Date     string   `json:"date"`
	Machine  machine  `json:"machine"`
	Command  string   `json:"command"`
	Seconds  float64  `json:"seconds"`
	Rows     []*row   `json:"rows"`
	Warnings []string `json:"warnings,omitempty"`
}

// machine says where it was measured.
type machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

func (s *result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

// writeTable writes a table for each network.
func (s *result) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, Linux %s, %d × %s, %s\n", s.Date, s.Machine.Kernel, s.Machine.CPUs, s.Machine.CPU, s.Machine.Go)
	for _, rtt := range s.networks() {
		where := "loopback"
		if rtt > 0 {
			where = fmt.Sprintf("%g ms round trip", rtt)
		}
		fmt.Fprintf(w, "\n%s (latency around an upgrade | in steady state, ms)\n", strings.ToUpper(where[:1])+where[1:])
		var notes []string
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "PEER\tUPGRADES\tREQUESTS\tFAILED\tUNSEEN\tP50\tP99\tP99.9\tMAX\tACCEPT GAP\tFIRST ANSWER\tPEAK MIB\tREQUESTS/S\t")
		for _, r := range s.Rows {
			if r.RTT != rtt {
				continue
			}
			if r.Error != "" {
				line, _, _ := strings.Cut(r.Error, "\n")
				fmt.Fprintf(t, "%s\t%d\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-\t\n", r.What, r.Upgrades)
				notes = append(notes, r.What+": "+line)
				continue
			}
			pair := func(a, b float64) string { return digits(a) + " | " + digits(b) }
			rate := "-"
			if r.PerSecond > 0 {
				rate = fmt.Sprintf("%.0f", r.PerSecond)
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.What, r.Upgrades, r.Requests, r.Failed, r.Unseen,
				pair(r.Around.P50, r.Steady.P50), pair(r.Around.P99, r.Steady.P99), pair(r.Around.P999, r.Steady.P999), pair(r.Around.Max, r.Steady.Max),
				pair(r.Gap, r.GapBase), digits(median(r.First)), pair(mib(r.MemoryPeak), mib(r.MemorySteady)), rate)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, note := range notes {
			fmt.Fprintln(w, note)
		}
	}
	return nil
}

// writeMarkdown writes a compact table of all networks, for a README.
func (s *result) writeMarkdown(w io.Writer) error {
	networks := s.networks()
	fmt.Fprintf(w, "%s, Linux %s, %d × %s, %s:\n\n| |", s.Date, s.Machine.Kernel, s.Machine.CPUs, s.Machine.CPU, s.Machine.Go)
	for _, rtt := range networks {
		where := "loopback"
		if rtt > 0 {
			where = fmt.Sprintf("%g ms", rtt)
		}
		fmt.Fprintf(w, " failed, %s |", where)
	}
	fmt.Fprintf(w, " p99 around / steady, ms | new version after, ms | accept gap, ms | memory, MiB | requests/s |\n|---|%s---|---|---|---|---|\n", strings.Repeat("---|", len(networks)))
	var missing []string
	for _, first := range s.Rows {
		if first.RTT != networks[0] {
			continue
		}
		fmt.Fprintf(w, "| %s |", first.What)
		for _, rtt := range networks {
			i := slices.IndexFunc(s.Rows, func(r *row) bool { return r.Peer == first.Peer && r.RTT == rtt })
			if i < 0 || s.Rows[i].Error != "" {
				fmt.Fprint(w, " – |")
				continue
			}
			fmt.Fprintf(w, " %d of %d |", s.Rows[i].Failed, s.Rows[i].Requests)
		}
		if first.Error != "" {
			line, _, _ := strings.Cut(first.Error, "\n")
			missing = append(missing, first.What+": "+line)
			fmt.Fprintln(w, " – | – | – | – | – |")
			continue
		}
		fmt.Fprintf(w, " %s / %s | %s | %s | %s | %.0f |\n", digits(first.Around.P99), digits(first.Steady.P99),
			digits(median(first.First)), digits(first.Gap), digits(mib(first.MemoryPeak)), first.PerSecond)
	}
	for _, m := range missing {
		fmt.Fprintf(w, "\n%s\n", m)
	}
	return nil
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// networks returns the round trips that there are rows of.
func (s *result) networks() (all []float64) {
	for _, r := range s.Rows {
		if !slices.Contains(all, r.RTT) {
			all = append(all, r.RTT)
		}
	}
	return all
}

// digits writes a figure with as many digits as mean something.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// line is the last line of a run: Baton's, and the others'.
func (s *result) line() string {
	var upgrades, requests, failed, others, missing int
	for _, r := range s.Rows {
		switch {
		case r.Error != "":
			missing++
		case strings.HasPrefix(r.Peer, baton):
			upgrades, requests, failed = upgrades+r.Upgrades, requests+r.Requests, failed+r.Failed
		default:
			others += r.Failed
		}
	}
	return fmt.Sprintf("result: upgrades=%d requests=%d failed=%d peers_failed=%d not_measured=%d", upgrades, requests, failed, others, missing)
}

// baton is how the names of Baton's rows begin.
const baton = "baton-"
