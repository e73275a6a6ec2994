package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// result is what the demo has measured.
type result struct {
	Modes       []modeResult `json:"modes"`
	Upgrades    int          `json:"upgrades"`
	Connections uint64       `json:"connections"`
	Failed      uint64       `json:"failed"`
	Seconds     float64      `json:"seconds"`
	OK          bool         `json:"ok"`
	Problems    []string     `json:"problems"` // why OK is false
}

// modeResult is the result of one mode.
type modeResult struct {
	Mode         handoff.Mode  `json:"mode"`
	Upgrades     int           `json:"upgrades"` // committed
	Connections  uint64        `json:"connections"`
	Failed       uint64        `json:"failed"`
	LongestGapMS float64       `json:"longest_gap_ms"`
	StallMS      float64       `json:"stall_ms"` // longest time in which the clients' process did not run
	AnsweredLast string        `json:"answered_last"`
	Crossed      uint64        `json:"crossed"` // connections open across an upgrade and served to their end
	Moved        uint64        `json:"moved"`   // HTTP connections that moved to a successor
	Each         []upgradeInfo `json:"each"`
	Load         load.Stats    `json:"load"`
	Problems     []string      `json:"problems"`
}

// upgradeInfo is one upgrade.
type upgradeInfo struct {
	From    string          `json:"from"`
	To      string          `json:"to"`
	Seconds float64         `json:"seconds"` // from the signal until the PID file named the successor
	Report  *handoff.Report `json:"report"`
}

// count adds the clients' counts. Each failure is a problem.
func (m *modeResult) count(s load.Stats) {
	m.Load = s
	m.Connections, m.Failed, m.Crossed, m.Moved = s.Connections, s.Failed, s.Crossed, s.Moved
	m.LongestGapMS, m.StallMS, m.AnsweredLast = s.LongestGapMS, s.StallMS, s.AnsweredLast
	if s.Failed > 0 {
		m.problem("%d of %d connections failed: %s", s.Failed, s.Connections, classes(s.Failures))
	}
	for _, f := range s.Samples {
		m.problem("after %.2f s: %s: %s: %s: %s", f.Seconds, f.Target, f.Step, f.Class, f.Error)
	}
}

// judge checks a finished run: want upgrades must have happened, and the newest version
// must have answered last on each address.
func (m *modeResult) judge(want int, newest string) {
	if m.Upgrades != want {
		m.problem("%d of %d upgrades happened", m.Upgrades, want)
	}
	if m.Connections == 0 {
		m.problem("no connection was made")
	}
	if m.AnsweredLast != newest {
		m.problem("%q answered last, the newest version is %s", m.AnsweredLast, newest)
	}
	for _, name := range sortedKeys(m.Load.Targets) {
		if last := m.Load.Targets[name].AnsweredLast; last != newest && m.AnsweredLast == newest {
			m.problem("%q answered last on %s, the newest version is %s", last, name, newest)
		}
	}
	if want > 0 && m.Crossed == 0 {
		m.problem("no connection was open across an upgrade")
	}
	if want > 0 && m.Moved == 0 {
		m.problem("no HTTP connection moved to a successor")
	}
}

func (m *modeResult) problem(format string, args ...any) {
	m.Problems = append(m.Problems, fmt.Sprintf(format, args...))
}

// add adds the result of a mode.
func (r *result) add(m modeResult) {
	r.Modes = append(r.Modes, m)
	r.Upgrades += m.Upgrades
	r.Connections += m.Connections
	r.Failed += m.Failed
	for _, p := range m.Problems {
		r.Problems = append(r.Problems, string(m.Mode)+": "+p)
	}
}

// line is the last line of output.
func (r *result) line() string {
	return fmt.Sprintf("result: upgrades=%d connections=%d failed=%d", r.Upgrades, r.Connections, r.Failed)
}

// writeTable writes a table of the modes, and one of the targets.
func (r *result) writeTable(w io.Writer) error {
	main := [][]string{{"MODE", "UPGRADES", "CONNECTIONS", "FAILED", "LONGEST GAP", "ANSWERED LAST"}}
	var names []string
	for _, t := range targets(addresses{"-", "-", "-", "-"}, 1) { // in the order of the targets
		names = append(names, t.Name)
	}
	var stalls []string
	for _, m := range r.Modes {
		main = append(main, []string{
			string(m.Mode), strconv.Itoa(m.Upgrades), thousands(m.Connections), thousands(m.Failed),
			millis(m.LongestGapMS), m.AnsweredLast,
		})
		stalls = append(stalls, millis(m.StallMS)+" ("+string(m.Mode)+")")
	}
	driven := [][]string{{"OF THESE"}}
	for _, name := range names {
		driven[0] = append(driven[0], strings.ToUpper(name))
	}
	driven[0] = append(driven[0], "OPEN ACROSS AN UPGRADE", "MOVED")
	for _, m := range r.Modes {
		row := []string{string(m.Mode)}
		for _, name := range names {
			row = append(row, thousands(m.Load.Targets[name].Connections))
		}
		driven = append(driven, append(row, thousands(m.Crossed), thousands(m.Moved)))
	}
	text := table(main) + "\n" + table(driven) + "\n" +
		"Gaps include times in which the clients' process did not run, up to " + strings.Join(stalls, ", ") + ".\n"
	_, err := io.WriteString(w, text)
	return err
}

// table aligns the first column left and the others right.
func table(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var out strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			if i == 0 {
				fmt.Fprintf(&out, "%-*s", widths[0], cell)
				continue
			}
			fmt.Fprintf(&out, "   %*s", widths[i], cell)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func millis(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

func (r *result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// classes lists failures by class, most frequent first.
func classes(m map[load.Class]uint64) string {
	keys := sortedKeys(m)
	slices.SortStableFunc(keys, func(a, b load.Class) int { return int(m[b]) - int(m[a]) })
	var out []string
	for _, k := range keys {
		out = append(out, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(out, ", ")
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// thousands writes n with separators.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
