package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/seed-11c92bf9/baton/handoff"
)

// The goal of a report: what is to come through without a loss.
const (
	goalUpgrades = 10_000
	goalRequests = 10_000_000
)

// readResults reads what -out has written.
func readResults(paths []string) ([]*result, error) {
	var all []*result
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		r := newResult(0)
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b *result) int { return a.Began.Compare(b.Began) })
	return all, nil
}

// modes are the modes in which a run upgrades, in order.
func modes() []handoff.Mode { return []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} }

// sum adds results up.
func sum(all []*result) *result {
	whole := newResult(0)
	byMode := make(map[handoff.Mode]*modeResult)
	for _, r := range all {
		whole.Seconds += r.Seconds
		whole.Upgrades += r.Upgrades
		whole.Requests += r.Requests
		whole.Faults += r.Faults
		whole.Lost += r.Lost
		whole.Supervised += r.Supervised
		for _, m := range r.Modes {
			to := byMode[m.Mode]
			if to == nil {
				to = newModeResult(m.Mode)
				byMode[m.Mode] = to
			}
			to.add(m)
		}
	}
	for _, mode := range modes() {
		if m := byMode[mode]; m != nil {
			whole.Modes = append(whole.Modes, m)
		}
	}
	return whole
}

// add adds another run of the same mode.
func (m *modeResult) add(o *modeResult) {
	m.Seconds += o.Seconds
	m.Upgrades += o.Upgrades
	m.Requests += o.Requests
	m.Lost += o.Lost
	m.Cut += o.Cut
	m.Supervised += o.Supervised
	for kind, verdicts := range o.Kinds {
		if m.Kinds[kind] == nil {
			m.Kinds[kind] = make(kindResult)
		}
		addTo(m.Kinds[kind], verdicts)
	}
	addTo(m.Verdicts, o.Verdicts)
	addTo(m.Faults, o.Faults)
	addTo(m.Missed, o.Missed)
	m.Findings = append(m.Findings, o.Findings...)
	m.Left = append(m.Left, o.Left...)
}

func addTo[M ~map[K]V, K comparable, V int | uint64](to, more M) {
	for k, v := range more {
		to[k] += v
	}
}

// writeReport writes a report of all runs as Markdown.
func writeReport(w io.Writer, all []*result) error {
	whole := sum(all)
	first, last := all[0].origin, all[len(all)-1].origin
	var b strings.Builder
	fmt.Fprintf(&b, "# The gauntlet, %s\n\n", last.Began.Format("2006-01-02"))
	fmt.Fprintf(&b, "%d upgrades, %d requests and %d faults in %d runs: %d lost.\n", whole.Upgrades, whole.Requests, whole.Faults, len(all), whole.Lost)
	fmt.Fprintf(&b, "The goal is %d upgrades and %d requests without a loss: %s.\n\n", goalUpgrades, goalRequests, reached(whole))
	fmt.Fprintf(&b, "Machine: %d CPUs, %d GiB, Linux %s, %s.\n", first.CPUs, (first.Memory+1<<29)>>30, first.Kernel, first.Go)
	b.WriteString("`go doc ./integration/gauntlet` says what is counted, and how it is proved.\n\n## Runs\n\n")
	b.WriteString("A run is reproduced by its command at its revision: its seed gives the same faults in the same order. What `-out` writes is not kept.\n\n```\n")
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BEGAN\tREVISION\tUPGRADES\tREQUESTS\tFAULTS\tLOST\tSECONDS\tCOMMAND")
	for _, r := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%.0f\t%s\n", r.Began.Format("2006-01-02 15:04"), r.Revision, r.Upgrades, r.Requests, r.Faults, r.Lost, r.Seconds, r.Command)
	}
	_ = t.Flush() // to memory
	b.WriteString("```\n\n## Together\n\n```\n")
	_ = whole.writeTable(&b) // likewise
	b.WriteString("```\n")
	var ended strings.Builder
	for _, r := range all {
		if r.Error != "" {
			why, _, _ := strings.Cut(r.Error, "\n") // the rest is a log
			fmt.Fprintf(&ended, "- seed %d: %s\n", r.Seed, why)
		}
		for _, m := range r.Modes {
			for _, f := range m.Findings {
				fmt.Fprintf(&ended, "  - %v: %s\n", m.Mode, f)
			}
		}
	}
	if ended.Len() > 0 {
		fmt.Fprintf(&b, "\n## What ended a run before its time\n\n%s", ended.String())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// reached says how far a result is on its way to the goal.
func reached(r *result) string {
	switch {
	case r.Lost > 0:
		return "missed"
	case r.Upgrades >= goalUpgrades && r.Requests >= goalRequests:
		return "reached"
	}
	return fmt.Sprintf("%d %% of the upgrades and %d %% of the requests are done", r.Upgrades*100/goalUpgrades, r.Requests*100/goalRequests)
}
