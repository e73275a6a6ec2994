package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

func (a *app) upgradeCommand() *cobra.Command {
	var cfg control.UpgradeConfig
	var wait string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace a server by its next version",
		Long: `Have a server start its successor, pass on its sockets and commit, and wait for
that. Whatever goes wrong before the commit leaves the server as it was; the exit
status is not 0 then, and the reason and the successor's last lines are shown.

An interrupt (^C) before the commit takes the upgrade back.`,
		Example: "  baton upgrade api\n  baton upgrade api --wait=linger --timeout=2m\n  baton upgrade api --exec /opt/api/bin/api-2.1",
	}
	cmd.Flags().StringVar(&wait, "wait", string(control.WaitCommit), "return when: commit, linger (the old version's open connections are done as well), none (it has begun)")
	cmd.Flags().DurationVar(&cfg.Timeout, "timeout", 0, "roll back what is not committed after this `time` (0: the server's own limits)")
	cmd.Flags().StringVar(&cfg.Executable, "exec", "", "upgrade to the program at `path` (modes takeover and drain)")
	must(cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions(waits(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		cfg.Wait = control.Wait(wait)
		if err := checkWait(wait, waits()); err != nil {
			return err
		}
		if cfg.Timeout < 0 {
			return fmt.Errorf("%w: --timeout %v: 0 or more", errUsage, cfg.Timeout)
		}
		var err error
		if cfg.Executable != "" {
			cfg.Executable, err = absolute(cfg.Executable)
		}
		return err
	}
	return a.leaf(cmd, func(ctx context.Context, c *control.Client) error {
		var report *handoff.Report
		committed := false
		err := a.watch(func(p *progress) error {
			ctx, heard, end := a.answered(ctx) // it says at once that it has begun, if it is alive
			defer end()
			cfg.OnLinger = p.linger
			cfg.OnEvent = func(e handoff.Event) {
				heard()
				committed = committed || e.Kind == handoff.EventCommitted
				p.event(e)
			}
			var err error
			report, err = c.Upgrade(ctx, &cfg)
			return err
		})
		switch {
		case interrupted(ctx, err) && committed:
			return fmt.Errorf("interrupted: the upgrade is committed, the old version lingers: %w", err)
		case interrupted(ctx, err):
			return fmt.Errorf("interrupted, and it is not known whether the upgrade is taken back: %w", errSilent)
		}
		if err != nil {
			return err
		}
		a.showReport(report, cfg.Wait)
		if report == nil {
			return a.shown("the upgrade is under way")
		}
		return a.shown(fmt.Sprintf("the upgrade is committed, pid %d serves", report.Successor.PID))
	})
}

func waits() []cobra.Completion {
	return []cobra.Completion{string(control.WaitCommit), string(control.WaitLinger), string(control.WaitNone)}
}

func checkWait(wait string, allowed []string) error {
	if slices.Contains(allowed, wait) {
		return nil
	}
	return fmt.Errorf("%w: --wait=%s: one of %s", errUsage, wait, strings.Join(allowed, ", "))
}

// must is for what can't fail but by a mistake in this program.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// progress shows how an upgrade or a drain goes, as it goes.
type progress struct {
	*app
	began time.Time

	mu   sync.Mutex
	live string // what is under way; on a terminal the time runs beside it
	most uint64 // connections that were open
	told bool   // of the linger
}

// watch shows progress while do is at work.
func (a *app) watch(do func(*progress) error) error {
	p := &progress{app: a, began: time.Now()}
	if a.json || !a.screen.Live() {
		return do(p)
	}
	var clock sync.WaitGroup
	end := make(chan struct{})
	clock.Go(func() { // ends with do
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				p.tick()
			}
		}
	})
	err := do(p)
	close(end)
	clock.Wait()
	a.screen.Clear()
	return err
}

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != "" {
		p.screen.Status("%s", p.at(p.live))
	}
}

// at puts the time before a text.
func (p *progress) at(text string) string {
	d := time.Since(p.began)
	if d >= time.Minute {
		return fmt.Sprintf("%8s  %s", short(d), text)
	}
	return fmt.Sprintf("%7.2fs  %s", d.Seconds(), text)
}

// step shows a step; live is the progress behind it.
func (p *progress) step(text, live string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.screen.Line("%s", p.at(text))
	p.live = live
}

// event shows a step of an upgrade.
func (p *progress) event(e handoff.Event) {
	if p.json {
		return
	}
	switch e.Kind {
	case handoff.EventUpgradeStarted, handoff.EventTransfer, handoff.EventWarming, handoff.EventPaused, handoff.EventCommitting:
		// Those that come to nothing are shown by the error.
		p.step(stepWords(&e), liveWords(e.Kind))
	case handoff.EventCommitted:
		if r := e.Report; r != nil {
			p.step(p.screen.Colour(terminal.Green, fmt.Sprintf("committed: pid %d%s serves as generation %d", r.Successor.PID, versionOf(r.Successor), r.Generation)), "")
		}
	}
}

// liveWords describe the progress of a step.
func liveWords(k handoff.EventKind) string {
	switch k {
	case handoff.EventUpgradeStarted:
		return "until it says hello ..."
	case handoff.EventTransfer:
		return "until it has them ..."
	case handoff.EventWarming:
		return "until it is ready ..."
	case handoff.EventPaused:
		return "until probation is over ..."
	}
	return "..."
}

// linger shows open connections: a bar on a terminal, a line at the beginning
// elsewhere.
func (p *progress) linger(l control.Linger) {
	p.most = max(p.most, l.Open)
	if p.json || l.Open == 0 {
		return
	}
	left := ""
	if l.Remaining >= 0 {
		left = ", cut in " + short(l.Remaining.Round(time.Second))
	}
	if !p.told {
		p.told = true
		are := "connections are"
		if l.Open == 1 {
			are = "connection is"
		}
		p.step(fmt.Sprintf("%d %s open%s", l.Open, are, left), "")
	}
	live := fmt.Sprintf("%s %d of %d connections open%s", bar(p.most-l.Open, p.most), l.Open, p.most, left)
	p.mu.Lock()
	p.live = live
	p.mu.Unlock()
	p.tick()
}

// showReport shows how an upgrade went that is committed.
func (a *app) showReport(r *handoff.Report, wait control.Wait) {
	switch {
	case a.json && r == nil:
		a.printJSON(map[string]string{"state": "started"})
	case a.json:
		a.printJSON(r)
	case r == nil:
		a.screen.Line("started: baton status shows how it goes")
	default:
		a.screen.Line("%s has replaced pid %d%s in %s", successorOf(r.Successor), r.Predecessor.PID, versionOf(r.Predecessor), short(r.Durations.Total))
		if wait == control.WaitLinger {
			a.screen.Line("the old version was done %s later: %d of its connections were moved, %d cut", short(r.Durations.Linger), r.Moved, r.Cut)
		}
	}
}

// successorOf names a successor. One that is plain tableflip never tells its
// process ID.
func successorOf(p handoff.Process) string {
	if p.PID == 0 {
		return "the successor"
	}
	return fmt.Sprintf("pid %d%s", p.PID, versionOf(p))
}

func versionOf(p handoff.Process) string {
	if p.Version == "" {
		return ""
	}
	return " (" + p.Version + ")"
}

func (a *app) rollbackCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Take back an upgrade that is not committed",
		Long: `Have a server take its sockets back from a successor that is not committed yet,
and wait for that. No connection is lost by it.`,
		Example: "  baton rollback api --reason 'error rate'",
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the server's log and its report")
	return a.leaf(cmd, func(ctx context.Context, c *control.Client) error {
		// A successor that hangs is given up in seconds.
		ctx, _, end := a.answered(ctx)
		defer end()
		r, err := c.Rollback(ctx, reason)
		if err != nil {
			return still(err, "rolls back")
		}
		switch {
		case a.json:
			a.printJSON(r)
		case r.Outcome == handoff.OutcomeFailed: // in the same moment
			a.screen.Line("the upgrade has failed by itself: %s: pid %d%s serves on", plain(r.Reason), r.Predecessor.PID, versionOf(r.Predecessor))
		default:
			a.screen.Line("rolled back: pid %d%s serves on", r.Predecessor.PID, versionOf(r.Predecessor))
		}
		return a.shown(fmt.Sprintf("the upgrade is rolled back, pid %d serves on", r.Predecessor.PID))
	})
}

func (a *app) drainCommand() *cobra.Command {
	var cfg control.DrainConfig
	var wait string
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "End a server when its open connections are done",
		Long: `Have a server stop accepting, serve its open connections up to its linger limit,
and end; wait for that. There is no successor: connections that wait in the queue
of a socket that no other process has are lost with it.

An interrupt (^C) ends the waiting, not the drain.`,
		Example: "  baton drain api\n  baton drain api --wait=none",
	}
	cmd.Flags().StringVar(&wait, "wait", string(control.WaitExit), "return when: exit (its process has ended), linger (its open connections are done), none (it has stopped accepting)")
	cmd.Flags().StringVar(&cfg.Reason, "reason", "", "`text` for the server's log")
	ends := append([]cobra.Completion{string(control.WaitExit)}, waits()[1:]...)
	must(cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions(ends, cobra.ShellCompDirectiveNoFileComp)))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		cfg.Wait = control.Wait(wait)
		return checkWait(wait, ends)
	}
	return a.leaf(cmd, func(ctx context.Context, c *control.Client) error {
		var l *control.Linger
		err := a.watch(func(p *progress) error {
			ctx, heard, end := a.answered(ctx) // it tells of its open connections at once
			defer end()
			cfg.OnEvent = func(e handoff.Event) {
				heard()
				p.event(e)
			}
			cfg.OnLinger = func(l control.Linger) {
				heard()
				p.linger(l)
			}
			var err error
			l, err = c.Drain(ctx, &cfg)
			return err
		})
		if interrupted(ctx, err) {
			return fmt.Errorf("interrupted: the server drains on: %w", err)
		}
		if err != nil {
			return still(err, "drains")
		}
		switch {
		case a.json && l == nil:
			a.printJSON(map[string]string{"state": "draining"})
		case a.json:
			a.printJSON(l)
		case l == nil:
			a.screen.Line("the server drains")
		default:
			a.screen.Line("the server is done: %d of its connections were cut", l.Cut)
		}
		if l == nil {
			return a.shown("the server drains")
		}
		return a.shown("the server is done")
	})
}

// still says what may become of a request that is not answered: the server reads it
// when it continues.
func still(err error, does string) error {
	if errors.Is(err, errSilent) {
		return fmt.Errorf("%w; if it continues, it %s then", err, does)
	}
	return err
}

// bar shows how much of a whole is done.
func bar(done, whole uint64) string {
	const cells = 20
	n := cells
	if whole > 0 {
		n = int(min(done, whole) * cells / whole)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", cells-n) + "]"
}
