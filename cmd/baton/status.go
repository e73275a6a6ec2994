package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the status of a server",
		Long: `Show a server's generation, process, version, mode and uptime; its sockets with
the length of their queues; predecessors that still linger; and the last upgrades.

"-" means unknown or not applicable. If systemd's descriptor store has sockets of the
server, the column STORED marks them.`,
		Example: "  baton status api\n  baton status api --watch\n  baton status api --json | jq .generation",
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "repeat until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "`time` between two updates with --watch")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if interval <= 0 {
			return fmt.Errorf("%w: --interval %v: it must be more than 0", errUsage, interval)
		}
		return nil
	}
	return a.leaf(cmd, func(ctx context.Context, c *control.Client) error {
		for {
			st, err := a.status(ctx, c)
			if watch && ctx.Err() != nil {
				return nil
			}
			if interrupted(ctx, err) {
				return fmt.Errorf("interrupted before the server had answered: it may hang or be stopped: %w", err)
			}
			if err != nil {
				return err
			}
			a.showStatus(st, watch)
			if !watch || a.out.err != nil {
				return nil
			}
			t := time.NewTimer(interval)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return nil
			}
		}
	})
}

func (a *app) showStatus(st *handoff.Status, watch bool) {
	if a.json {
		a.printJSON(st)
		return
	}
	a.quote(st)
	if !watch {
		_, _ = a.out.Write([]byte(a.statusText(st))) // output keeps the error
		return
	}
	text := a.statusText(st)
	for rows := a.screen.Rows(); rows > 0 && strings.Count(text, "\n") > rows && len(st.Upgrades) > 1; {
		st.Upgrades = st.Upgrades[1:] // keep the latest
		text = a.statusText(st)
	}
	a.screen.Page(text)
}

// statusText is the page for people.
func (a *app) statusText(st *handoff.Status) string {
	var b bytes.Buffer
	name := st.Name
	if name == "" {
		name = "server"
	}
	state := string(st.State)
	switch st.State {
	case handoff.StateServing:
		state = a.screen.Colour(terminal.Green, state)
	default:
		state = a.screen.Colour(terminal.Yellow, state)
	}
	fmt.Fprintf(&b, "%s  %s  generation %d  pid %d  up %s\n", a.screen.Colour(terminal.Bold, name), state, st.Generation, st.PID, short(st.Uptime))
	fmt.Fprintf(&b, "version      %s\n", or(st.Version, "-"))
	fmt.Fprintf(&b, "build        %s\n", or(st.Build, "-"))
	fmt.Fprintf(&b, "mode         %v; an upgrade starts %s\n", st.Mode, st.Executable)
	fmt.Fprintf(&b, "connections  %d accepted, %d received, %d open, %d moved, %d cut%s\n", st.Accepted, st.Received, st.Open, st.Moved, st.Cut, limit(st.Remaining))
	if t := st.Totals; t != nil {
		fmt.Fprintf(&b, "upgrades     %d committed, %d rolled back, %d failed, since generation 1\n", t.Committed, t.RolledBack, t.Failed)
	}
	if st.NoUpgrade != "" {
		a.remark(&b, terminal.Red, "no upgrade can begin: "+st.NoUpgrade)
	}
	for _, text := range st.Warnings {
		a.remark(&b, terminal.Yellow, "warning: "+text)
	}
	if u := st.Upgrade; u != nil {
		fmt.Fprintf(&b, "upgrade      %s\n", a.screen.Colour(terminal.Yellow, stepWords(u)))
	}
	head, stored := "SOCKET\tNETWORK\tADDRESS\tQUEUE\tBACKLOG\tHALF-OPEN\tACCEPTED", slices.ContainsFunc(st.Sockets, isStored)
	if stored {
		head += "\tSTORED"
	}
	table(&b, head, len(st.Sockets), func(i int) string {
		s := st.Sockets[i]
		accepted := "-"
		if s.Kind == "listener" {
			accepted = fmt.Sprint(s.Accepted)
		}
		cells := []string{or(s.Name, s.Kind), or(s.Network, "-"), or(s.Address, "-"), count(s.Queue), count(s.Backlog), count(s.HalfOpen), accepted}
		if stored {
			cells = append(cells, map[bool]string{true: "yes", false: "no"}[s.Stored])
		}
		return row(cells...)
	})
	table(&b, "FLOWS\tADDRESS\tSTRATEGY\tLANE\tUSED\tLANES\tKEPT", len(st.Flows), func(i int) string {
		f := st.Flows[i]
		return row(f.Network, f.Address, f.Strategy, fmt.Sprint(f.Lane), fmt.Sprint(len(f.Used)), fmt.Sprint(f.Lanes), fmt.Sprint(f.Kept))
	})
	table(&b, "LINGERING\tVERSION\tGENERATION\tOPEN\tMOVED\tENDS", len(st.Lingering), func(i int) string {
		p := st.Lingering[i]
		ends := "when it is done"
		if p.Remaining >= 0 {
			ends = "within " + short(p.Remaining)
		}
		return row(fmt.Sprint("pid ", p.PID), or(p.Version, "-"), fmt.Sprint(p.Generation), fmt.Sprint(p.Open), fmt.Sprint(p.Moved), ends)
	})
	var upgrades bytes.Buffer
	table(&upgrades, "UPGRADE\tGENERATION\tFROM\tTO\tOUTCOME\tTOOK\tLINGER", len(st.Upgrades), func(i int) string {
		r := st.Upgrades[i]
		linger := "-"
		if r.Durations.Linger > 0 {
			linger = short(r.Durations.Linger)
		}
		return row(r.Started.Local().Format(time.DateTime), fmt.Sprint(r.Generation), process(r.Predecessor), process(r.Successor),
			string(r.Outcome), short(r.Durations.Total), linger)
	})
	a.withReasons(&b, upgrades.String(), st.Upgrades)
	return b.String()
}

// remark writes a text of the server on lines of its own.
func (a *app) remark(b *bytes.Buffer, c terminal.Colour, text string) {
	for _, line := range a.screen.Wrap(0, plain(text)) {
		fmt.Fprintln(b, a.screen.Colour(c, line))
	}
}

func isStored(s handoff.SocketStatus) bool { return s.Stored }

// table writes a table with a head, if it has rows.
func table(b *bytes.Buffer, head string, rows int, at func(int) string) {
	if rows == 0 {
		return
	}
	fmt.Fprintln(b)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, head) // a buffer: no error
	for i := range rows {
		_, _ = fmt.Fprintln(w, strings.TrimRight(at(i), "\t "))
	}
	_ = w.Flush()
}

func row(cells ...string) string { return strings.Join(cells, "\t") }

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func count(n int) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func process(p handoff.Process) string {
	if p.PID == 0 {
		return "-"
	}
	return strings.TrimRight(fmt.Sprintf("%d %s", p.PID, p.Version), " ")
}

// withReasons writes the table of the last upgrades. The reason of a failed one, and
// warnings, follow on lines of their own: the table has no room for it.
func (a *app) withReasons(b *bytes.Buffer, table string, upgrades []handoff.Report) {
	i := -2 // an empty line and the head
	for line := range strings.Lines(table) {
		row := i >= 0 && i < len(upgrades) // a server may send line breaks
		if row {
			if outcome := string(upgrades[i].Outcome); outcome != string(handoff.OutcomeCommitted) {
				line = strings.Replace(line, outcome, a.screen.Colour(terminal.Red, outcome), 1)
			}
		}
		b.WriteString(line)
		if row {
			for _, reason := range append(slices.Clip(upgrades[i].Warnings), upgrades[i].Reason) {
				if reason == "" {
					continue
				}
				for _, text := range a.screen.Wrap(4, plain(reason)) {
					fmt.Fprintf(b, "    %s\n", text)
				}
			}
		}
		i++
	}
}

func limit(remaining time.Duration) string {
	if remaining < 0 {
		return ""
	}
	return "; the rest is cut in " + short(remaining)
}

// short formats a duration with three digits at most.
func short(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d >= time.Minute:
		return d.Round(time.Second).String()
	}
	for unit := 10 * time.Second; unit >= time.Microsecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

// stepWords describes an event of an upgrade.
func stepWords(e *handoff.Event) string {
	var p handoff.Process
	if e.Report != nil {
		p = e.Report.Successor
	}
	successor := successorOf(p)
	switch e.Kind {
	case handoff.EventUpgradeStarted:
		return "starting a successor"
	case handoff.EventWaiting:
		return plain(e.Reason)
	case handoff.EventTransfer:
		return "passing sockets and state to " + successor
	case handoff.EventWarming:
		return successor + " is starting up"
	case handoff.EventPaused:
		return "probation: " + successor + " accepts; it can still be rolled back"
	case handoff.EventCommitting:
		return "commits"
	case handoff.EventCommitted:
		return "committed"
	}
	return string(e.Kind)
}

// interrupted reports whether an error is only the user's interrupt.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}
