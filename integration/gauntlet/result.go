package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/seed-11c92bf9/baton/handoff"
)

// result is the result of a run.
type result struct {
	origin
	Seed       uint64        `json:"seed"`
	Seconds    float64       `json:"seconds"`
	Upgrades   int           `json:"upgrades"` // committed
	Requests   uint64        `json:"requests"`
	Faults     int           `json:"faults"` // that have happened
	Lost       uint64        `json:"lost"`
	Supervised int           `json:"supervised"` // times that all processes were dead, and the driver started another
	Modes      []*modeResult `json:"modes"`
	Error      string        `json:"error,omitempty"`
}

// modeResult is the part of a mode.
type modeResult struct {
	Mode       handoff.Mode            `json:"mode"`
	Seconds    float64                 `json:"seconds"`
	Upgrades   int                     `json:"upgrades"`
	Requests   uint64                  `json:"requests"`
	Lost       uint64                  `json:"lost"`
	Cut        uint64                  `json:"cut"` // connections, at the linger limit
	Supervised int                     `json:"supervised"`
	Kinds      map[kindName]kindResult `json:"kinds"`
	Verdicts   map[verdict]uint64      `json:"verdicts"`
	Faults     map[string]int          `json:"faults"`
	Missed     map[string]int          `json:"missed"` // faults that did not happen
	Findings   []string                `json:"findings,omitempty"`
	Left       []string                `json:"left,omitempty"`
	Account    string                  `json:"account,omitempty"` // a folder with more about a failure
	live       uint64
}

// kindResult is the part of a kind of client.
type kindResult map[verdict]uint64

func newResult(seed uint64) *result { return &result{Seed: seed, Modes: []*modeResult{}} }

func newModeResult(mode handoff.Mode) *modeResult {
	return &modeResult{
		Mode: mode, Kinds: make(map[kindName]kindResult), Verdicts: make(map[verdict]uint64),
		Faults: make(map[string]int), Missed: make(map[string]int),
	}
}

// maxFindings bounds the losses that are listed.
const maxFindings = 100

// count adds the result of comparing the ledgers, and returns how many requests were
// lost.
func (m *modeResult) count(tally map[uint8]map[verdict]uint64, findings []finding) (lost uint64) {
	for i, verdicts := range tally {
		name := kindName("?")
		if all := kinds(); int(i) < len(all) {
			name = all[i].name
		}
		if m.Kinds[name] == nil {
			m.Kinds[name] = make(kindResult)
		}
		for v, n := range verdicts {
			m.Kinds[name][v] += n
			m.Verdicts[v] += n
			m.Requests += n
			if v.loss() {
				lost += n
			}
		}
	}
	m.Lost += lost
	for _, f := range findings {
		if f.loss() && len(m.Findings) < maxFindings {
			m.Findings = append(m.Findings, f.String())
		}
	}
	return lost
}

func (m *modeResult) faults() (n int) {
	for _, k := range m.Faults {
		n += k
	}
	return n
}

// add adds a mode.
func (r *result) add(m *modeResult) {
	r.Modes = append(r.Modes, m)
	r.Upgrades += m.Upgrades
	r.Requests += m.Requests
	r.Faults += m.faults()
	r.Lost += m.Lost
	r.Supervised += m.Supervised
}

// line is the last line of a run.
func (r *result) line() string {
	return fmt.Sprintf("result: upgrades=%d requests=%d faults=%d lost=%d", r.Upgrades, r.Requests, r.Faults, r.Lost)
}

func (r *result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeTable writes what was found as tables: by mode and kind of client, and by
// fault.
func (r *result) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "MODE\tUPGRADES\tREQUESTS\tFAULTS\tSERVED\tDIED WITH ITS PROCESS\tIN ITS HAND\tUNSERVED\tLOST\tSECONDS\t")
	for _, m := range r.Modes {
		fmt.Fprintf(t, "%v\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t\n", m.Mode, m.Upgrades, m.Requests, m.faults(),
			m.Verdicts[served], m.Verdicts[diedWith], m.Verdicts[inHand], m.Verdicts[unserved], m.Lost, m.Seconds)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprint(w, "\n")
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "CLIENT\t")
	for _, m := range r.Modes {
		fmt.Fprintf(t, "%v\tNOT SERVED\tLOST\t", m.Mode)
	}
	fmt.Fprintln(t)
	for _, k := range kinds() {
		fmt.Fprintf(t, "%s\t", k.name)
		for _, m := range r.Modes {
			var all, losses uint64
			for v, n := range m.Kinds[k.name] {
				if all += n; v.loss() {
					losses += n
				}
			}
			fmt.Fprintf(t, "%d\t%d\t%d\t", all, all-m.Kinds[k.name][served], losses)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	faults := make(map[string][2]int)
	for _, m := range r.Modes {
		for name, n := range m.Faults {
			f := faults[name]
			faults[name] = [2]int{f[0] + n, f[1]}
		}
		for name, n := range m.Missed {
			f := faults[name]
			faults[name] = [2]int{f[0], f[1] + n}
		}
	}
	fmt.Fprint(w, "\n")
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "FAULT\tHAPPENED\tDID NOT HAPPEN\t")
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		fmt.Fprintf(t, "%s\t%d\t%d\t\n", name, faults[name][0], faults[name][1])
	}
	return t.Flush()
}
