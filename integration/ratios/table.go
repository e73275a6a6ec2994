package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// ref names a figure. A star in the benchmark stands for any text.
type ref struct {
	benchmark, unit string
	times           float64 // makes it comparable; zero means 1
}

// A row compares figures with their limits. What the star of the figure stands
// for is put for the star of the limit, and as a number into times where that is
// perStar.
type row struct {
	what   string
	figure ref
	limit  ref
	than   string // what the limit is
}

// perStar is the number that the star stands for, as [ref.times].
const perStar = -1

// rows are the comparisons, in order.
func rows() []row {
	bare := ref{benchmark: "session.Transfer/10000", unit: "bare-ns/fd"}
	moving := func(mode string) row {
		limit := bare
		limit.times = perStar
		return row{
			"idle HTTP connections move, " + mode + ", ns",
			ref{benchmark: "handoffhttp.MoveIdle/" + mode + "/*", unit: "ms-moving/op", times: 1e6},
			limit, "a bare loop of sendmsg and recvmsg, for the descriptors alone",
		}
	}
	var all []row
	add := func(r row) { all = append(all, r) }
	add(row{"accept, ns", ref{"handoff.Accept/*", "baton-ns/accept", 0}, ref{"handoff.Accept/*", "plain-ns/accept", 0}, "net.Listener"})
	add(row{"accept in a group, with the dial, ns", ref{"reuseport.Accept/reuseport", "ns/op", 0}, ref{"reuseport.Accept/net", "ns/op", 0}, "net.Listener"})
	add(row{"descriptors in frames, ns", ref{"fdpass.Transfer/*", "framed-ns", 0}, ref{"fdpass.Transfer/*", "bare-ns", 0}, "a bare loop of sendmsg and recvmsg"})
	add(row{"sockets of a service, ns each", ref{"session.Transfer/*", "session-ns/fd", 0}, ref{"session.Transfer/*", "bare-ns/fd", 0}, "a bare loop of sendmsg and recvmsg"})
	add(row{"the same, each checked", ref{"session.Transfer/*", "session-ns/fd", 0}, ref{"session.Transfer/*", "checked-ns/fd", 0}, "the bare loop with the same checks"})
	add(row{"the same", ref{"session.Transfer/*", "session-ns/fd", 0}, ref{"session.Transfer/*", "limit-ns/fd", 0}, "the bare loop, and what system calls the checks take"})
	add(row{"state of 1 GiB, MB/s: more is better", ref{"handoff.State/*", "state-MB/s", 0}, ref{"handoff.State/*", "plain-MB/s", 0}, "a plain write into memory"})
	for _, mode := range []string{"inherit", "takeover"} {
		add(row{"from the signal to the first accept, " + mode + ", ms", ref{"handoff.FirstAccept", mode + "-ms", 0}, ref{"handoff.FirstAccept", "tableflip-ms", 0}, "plain tableflip"})
		add(row{"the same", ref{"handoff.FirstAccept", mode + "-ms", 0}, ref{"handoff.FirstAccept", "exec-ms", 0}, "fork and exec alone"})
	}
	for _, what := range []struct{ name, benchmark string }{{"request", "Requests"}, {"request, no Upgrader", "RequestsAlone"}, {"connection", "Conns"}} {
		add(row{"an HTTP " + what.name + ", ns", ref{"handoffhttp." + what.benchmark, "baton-ns", 0}, ref{"handoffhttp." + what.benchmark, "plain-ns", 0}, "net/http alone"})
		add(row{"the same, ns of the CPU", ref{"handoffhttp." + what.benchmark, "baton-cpu-ns", 0}, ref{"handoffhttp." + what.benchmark, "plain-cpu-ns", 0}, "net/http alone"})
	}
	add(moving("inherit"))
	add(moving("takeover"))
	add(moving("drain"))
	add(row{"drain, after its last handshake, ns", ref{"reuseport.Drain", "settle-µs/op", 1e3}, ref{"reuseport.Accept/net", "ns/op", 0}, "one handshake, which it waits for"})
	add(row{"steering by weight, percent", ref{"reuseport.Weights/*%", "percent", 0}, ref{"", "", perStar}, "what was asked for"})
	return all
}

// star returns what the star of a pattern stands for in n.
func star(pattern string, n name) (string, bool) {
	before, after, ok := strings.Cut(pattern, "*")
	if !ok {
		return "", pattern == string(n)
	}
	rest, ok := strings.CutPrefix(string(n), before)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, after)
}

// scale returns what a figure is multiplied with.
func (r ref) scale(star string) (float64, bool) {
	switch r.times {
	case 0:
		return 1, true
	case perStar:
		n, err := strconv.ParseFloat(star, 64)
		return n, err == nil
	}
	return r.times, true
}

// value returns the figure that r names.
func (all figures) value(r ref, star string) (float64, bool) {
	times, ok := r.scale(star)
	if !ok || r.benchmark == "" {
		return times, ok
	}
	v, ok := all.median(name(strings.Replace(r.benchmark, "*", star, 1)), r.unit)
	return v * times, ok
}

// write writes the table.
func (all figures) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "WHAT\tBENCHMARK\tBATON\tLIMIT\tRATIO\tLIMIT IS")
	var missing []string
	for _, r := range rows() {
		found := false
		for _, n := range slices.SortedFunc(maps.Keys(all), natural) {
			s, ok := star(r.figure.benchmark, n)
			if !ok {
				continue
			}
			v, ok := all.value(r.figure, s)
			limit, ok2 := all.value(r.limit, s)
			if !ok || !ok2 || limit == 0 {
				continue
			}
			found = true
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.3f\t%s\n", r.what, n, digits(v), digits(limit), v/limit, r.than)
		}
		if !found {
			missing = append(missing, r.what)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nnot in this run: %s\n", strings.Join(missing, "; "))
	return err
}

// digits writes v with about three of them that mean something.
func digits(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// natural orders benchmarks with numbers at their ends by these.
func natural(a, b name) int {
	if d := len(a) - len(b); d != 0 && strings.TrimRight(string(a), "0123456789") == strings.TrimRight(string(b), "0123456789") {
		return d
	}
	return strings.Compare(string(a), string(b))
}
