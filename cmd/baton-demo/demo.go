package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// demoConfig are the flags of the demo.
type demoConfig struct {
	upgrades  int
	workers   int
	probation time.Duration
	timeout   time.Duration
	json      bool
}

// errShown is a failure that was already printed.
var errShown = errors.New("the demo has failed")

func demoCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c demoConfig
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&c.upgrades, "upgrades", 5, "upgrades in each mode")
	fs.IntVar(&c.workers, "workers", 3, "clients of each protocol")
	fs.DurationVar(&c.probation, "probation", 500*time.Millisecond, "time in which an upgrade can be rolled back")
	fs.DurationVar(&c.timeout, "timeout", 5*time.Minute, "the demo's own limit")
	fs.BoolVar(&c.json, "json", false, "print the result as JSON; progress goes to standard error")
	if err := parse(fs, args); err != nil {
		return err
	}
	if c.upgrades < 1 || c.workers < 1 {
		fmt.Fprintln(stderr, "baton-demo demo: -upgrades and -workers must be at least 1")
		return errUsage
	}
	if err := supported(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("not done within %v", c.timeout))
	defer cancel()
	screen := stdout
	if c.json {
		screen = stderr
	}
	p := terminal.New(screen, screen)
	res := c.run(ctx, p)
	p.Clear()
	if c.json {
		if err := res.writeJSON(stdout); err != nil {
			return err
		}
	} else if len(res.Modes) > 0 {
		p.Line("")
		if err := res.writeTable(stdout); err != nil {
			return err
		}
	}
	p.Line("")
	for _, problem := range res.Problems {
		p.Line("PROBLEM %s", problem)
	}
	p.Line("%s", res.line())
	if !res.OK {
		return errShown
	}
	return nil
}

// run builds the versions and runs the modes.
func (c *demoConfig) run(ctx context.Context, p *terminal.Screen) *result {
	began := time.Now()
	res := &result{Modes: []modeResult{}, Problems: []string{}}
	if err := c.runModes(ctx, p, res); err != nil {
		res.Problems = append(res.Problems, err.Error())
	}
	res.Seconds = time.Since(began).Seconds()
	res.OK = len(res.Problems) == 0
	return res
}

func (c *demoConfig) runModes(ctx context.Context, p *terminal.Screen, res *result) (err error) {
	if err := adopt(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "baton-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var versions []string
	for i := range c.upgrades + 1 {
		versions = append(versions, fmt.Sprintf("v%d", i+1))
	}
	times := "once"
	if c.upgrades > 1 {
		times = fmt.Sprintf("%d times", c.upgrades)
	}
	p.Line("A service is replaced by its next version, %s in each mode, while clients use it.", times)
	p.Line("building %d versions ...", len(versions))
	began := time.Now()
	bin := filepath.Join(dir, "bin")
	err = build(ctx, bin, versions, func(n int) { p.Status("built %d of %d ...", n, len(versions)) })
	if err != nil {
		return err
	}
	p.Line("built %s to %s in %.1f s", versions[0], versions[len(versions)-1], time.Since(began).Seconds())
	for _, mode := range modes() {
		m, err := c.runMode(ctx, p, mode, filepath.Join(dir, string(mode)), bin, versions)
		res.add(m)
		if err != nil || ctx.Err() != nil { // runMode has recorded an interruption
			return err
		}
	}
	return nil
}

// runMode upgrades a service under load, from version to version.
func (c *demoConfig) runMode(ctx context.Context, p *terminal.Screen, mode handoff.Mode, dir, bin string, versions []string) (m modeResult, err error) {
	m = modeResult{Mode: mode, Each: []upgradeInfo{}, Problems: []string{}}
	r, err := newRig(dir)
	if err != nil {
		return m, err
	}
	var failure error // of the service; the clients' counts are shown anyway
	defer func() {
		p.Clear()
		log := r.lastLog(20)
		left, closeErr := r.close()
		err = errors.Join(err, closeErr)
		if failure != nil {
			m.problem("%v", failure)
			if ctx.Err() == nil {
				for _, line := range log {
					p.Line("    | %s", line)
				}
			}
			return // what is left follows from the failure
		}
		for _, what := range left {
			m.problem("left behind: %s", what)
		}
	}()
	newest := versions[len(versions)-1]
	failure = c.drive(ctx, p, r, &m, bin, versions)
	stats := r.latest()
	if failure == nil {
		stats, failure = r.stop(ctx)
	}
	m.count(stats)
	if failure == nil {
		m.judge(len(versions)-1, newest)
	}
	return m, nil
}

// drive starts service and clients and upgrades the service.
func (c *demoConfig) drive(ctx context.Context, p *terminal.Screen, r *rig, m *modeResult, bin string, versions []string) error {
	r.baton = filepath.Join(bin, batonName)
	if err := install(filepath.Join(bin, versions[0]), r.path); err != nil {
		return err
	}
	a, err := r.startService(ctx, "-mode", string(m.Mode), "-probation", c.probation.String())
	if err != nil {
		return err
	}
	if err := r.startClients(ctx, a, "-workers", fmt.Sprint(c.workers)); err != nil {
		return err
	}
	pid, err := r.pid()
	if err != nil {
		return err
	}
	p.Line("%-10s %s serves as process %d, clients are connected", m.Mode, versions[0], pid)
	for i, to := range versions[1:] {
		from := versions[i]
		if err := install(filepath.Join(bin, to), r.path); err != nil {
			return err
		}
		info, err := r.upgrade(ctx, from, to, func(step handoff.EventKind) {
			p.Status("%-10s %s -> %s  %-22s %s", m.Mode, from, to, words(step), progress(r))
		})
		if err != nil {
			return err
		}
		m.Upgrades++
		m.Each = append(m.Each, info)
		r.mu.Lock()
		done := progress(r)
		r.mu.Unlock()
		p.Line("%-10s %s -> %s  %-22s %s", m.Mode, from, to, fmt.Sprintf("committed in %.0f ms", info.Seconds*1000), done)
		lingers := func() { p.Status("%-10s %s lingers until its connections have ended", m.Mode, from) }
		switch {
		case to == versions[len(versions)-1]:
			lingers()
			err = r.settle(ctx, to)
		case !overlaps(m.Mode):
			lingers()
			err = r.predecessorsGone(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// words describes the step of an upgrade.
func words(step handoff.EventKind) string {
	switch step {
	case handoff.EventTransfer:
		return "passes its sockets on"
	case handoff.EventWarming:
		return "waits for Ready"
	case handoff.EventPaused:
		return "probation"
	case handoff.EventCommitting:
		return "commits"
	case handoff.EventCommitted:
		return "is committed"
	}
	return "starts"
}

// progress formats the clients' counts. The rig's lock is held.
func progress(r *rig) string {
	return fmt.Sprintf("%7s connections, %d failed, %d held open", thousands(r.stats.Connections), r.stats.Failed, r.stats.Open)
}
