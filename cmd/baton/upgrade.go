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
		Long: `Make a server start its successor, pass it the sockets and commit, and wait for the
commit. If anything fails before the commit, the server serves on unchanged; the
exit status is not 0, and the reason and the successor's last lines are shown.

An interrupt (^C) before the commit rolls the upgrade back.`,
		Example: "  baton upgrade api\n  baton upgrade api --wait=linger --timeout=2m\n  baton upgrade api --exec /opt/api/bin/api-2.1",
	}
	cmd.Flags().StringVar(&wait, "wait", string(control.WaitCommit), "return when: commit, linger (the old version's open connections are done as well), none (the upgrade has begun)")
	cmd.Flags().DurationVar(&cfg.Timeout, "timeout", 0, "roll back if not committed after this `time` (0: the server's own limits)")
	cmd.Flags().StringVar(&cfg.Executable, "exec", "", "upgrade to the program at `path` (modes takeover and drain)")
	cmd.Flags().StringArrayVar(&cfg.Env, "env", nil, "set the variable `KEY=VALUE` for the next version and those after it; may be repeated (modes takeover and drain)")
	must(cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions(waits(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		cfg.Wait = control.Wait(wait)
		if err := checkWait(wait, waits()); err != nil {
			return err
		}
		if cfg.Timeout < 0 {
			return fmt.Errorf("%w: --timeout %v: it must be 0 or more", errUsage, cfg.Timeout)
		}
		for _, v := range cfg.Env {
			if i := strings.IndexByte(v, '='); i <= 0 {
				return fmt.Errorf("%w: --env %s: want KEY=VALUE", errUsage, v)
			}
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
			ctx, received, end := a.answered(ctx) // a live server sends its first event at once
			defer end()
			cfg.OnLinger = p.linger
			cfg.OnEvent = func(e handoff.Event) {
				received()
				committed = committed || e.Kind == handoff.EventCommitted
				p.event(e)
			}
			var err error
			report, err = c.Upgrade(ctx, &cfg)
			return err
		})
		switch {
		case interrupted(ctx, err) && committed:
			return fmt.Errorf("interrupted: the upgrade is committed; the old version still has open connections: %w", err)
		case interrupted(ctx, err):
			return fmt.Errorf("interrupted; it is unknown whether the upgrade was rolled back: %w", errSilent)
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

// must panics on errors that only a mistake in this program can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// progress shows an upgrade or a drain while it runs.
type progress struct {
	*app
	began time.Time

	mu        sync.Mutex
	live      string // the step in progress; a terminal shows its time
	most      uint64 // connections that were open at first
	announced bool   // the linger was announced
	idle      int    // counts of a process that has no connections and has not ended
}

// idleNotice is the number of such counts, five of which come in a second, after which
// progress says what is awaited.
const idleNotice = 10

// watch shows progress while do runs.
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

// at prefixes a text with the time.
func (p *progress) at(text string) string {
	d := time.Since(p.began)
	if d >= time.Minute {
		return fmt.Sprintf("%8s  %s", short(d), text)
	}
	return fmt.Sprintf("%7.2fs  %s", d.Seconds(), text)
}

// step shows a step; live describes what is awaited next.
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
	p.quote(&e)
	switch e.Kind {
	case handoff.EventUpgradeStarted, handoff.EventWaiting, handoff.EventTransfer, handoff.EventWarming, handoff.EventPaused, handoff.EventCommitting:
		// A failed upgrade is shown by its error.
		p.step(stepWords(&e), liveWords(e.Kind))
	case handoff.EventCommitted:
		if r := e.Report; r != nil {
			p.step(p.screen.Colour(terminal.Green, fmt.Sprintf("committed: pid %d%s serves as generation %d", r.Successor.PID, versionOf(r.Successor), r.Generation)), "")
		}
	}
}

// liveWords describe what is awaited after a step.
func liveWords(k handoff.EventKind) string {
	switch k {
	case handoff.EventUpgradeStarted:
		return "waiting for its hello ..."
	case handoff.EventWaiting:
		return "waiting ..."
	case handoff.EventTransfer:
		return "waiting for the transfer ..."
	case handoff.EventWarming:
		return "waiting for it to be ready ..."
	case handoff.EventPaused:
		return "waiting for the end of probation ..."
	}
	return "..."
}

// linger shows open connections: as a bar on a terminal, elsewhere as one line at the
// start.
func (p *progress) linger(l control.Linger) {
	p.most = max(p.most, l.Open)
	if p.json {
		return
	}
	if l.Open == 0 {
		if p.idle++; p.idle == idleNotice {
			p.step("no connection is open, and the process has not ended: waiting until its program calls Shutdown and returns", "waiting for the end of the process ...")
		}
		return
	}
	left := ""
	if l.Remaining >= 0 {
		left = ", cut in " + short(l.Remaining.Round(time.Second))
	}
	if !p.announced {
		p.announced = true
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

// showReport shows the report of a committed upgrade.
func (a *app) showReport(r *handoff.Report, wait control.Wait) {
	a.quote(r)
	switch {
	case a.json && r == nil:
		a.printJSON(map[string]string{"state": "started"})
	case a.json:
		a.printJSON(r)
	case r == nil:
		a.screen.Line("started: see baton status")
	default:
		a.screen.Line("%s has replaced pid %d%s in %s", successorOf(r.Successor), r.Predecessor.PID, versionOf(r.Predecessor), short(r.Durations.Total))
		for _, text := range r.Warnings {
			a.screen.Line("%s", a.screen.Colour(terminal.Yellow, "warning: "+plain(text)))
		}
		if wait == control.WaitLinger {
			a.screen.Line("the old version was done %s later: %d of its connections were moved, %d cut", short(r.Durations.Linger), r.Moved, r.Cut)
		}
	}
}

// successorOf names a successor. A successor on plain tableflip does not send its
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
		Short: "Roll back an upgrade that is not committed",
		Long: `Make a server end an upgrade that is not committed and accept again itself, and wait
for that. No connection is lost.`,
		Example: "  baton rollback api --reason 'error rate'",
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the server's log and its report")
	return a.leaf(cmd, func(ctx context.Context, c *control.Client) error {
		// A server gives a hanging successor up within seconds.
		ctx, _, end := a.answered(ctx)
		defer end()
		r, err := c.Rollback(ctx, reason)
		if err != nil {
			return still(err, "rolls back")
		}
		a.quote(r)
		switch {
		case a.json:
			a.printJSON(r)
		case r.Outcome == handoff.OutcomeFailed: // it failed at the same moment
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
		Long: `Make a server stop accepting, serve its open connections up to its linger limit, and
end; wait for that. There is no successor: if no other process has a socket of the
server, the kernel resets the connections in that socket's queue.

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
			ctx, received, end := a.answered(ctx) // a live server reports its open connections at once
			defer end()
			cfg.OnEvent = func(e handoff.Event) {
				received()
				p.event(e)
			}
			cfg.OnLinger = func(l control.Linger) {
				received()
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
			for _, w := range l.Warnings {
				a.screen.Line("%s", a.screen.Colour(terminal.Yellow, "warning: "+plain(w)))
			}
		}
		if l == nil {
			return a.shown("the server drains")
		}
		return a.shown("the server is done")
	})
}

// still adds to an error what happens to a request without an answer: the server reads
// it when it resumes.
func still(err error, does string) error {
	if errors.Is(err, errSilent) {
		return fmt.Errorf("%w; if the server resumes, it %s then", err, does)
	}
	return err
}

// bar shows a fraction as a bar.
func bar(done, whole uint64) string {
	const cells = 20
	n := cells
	if whole > 0 {
		n = int(min(done, whole) * cells / whole)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", cells-n) + "]"
}
