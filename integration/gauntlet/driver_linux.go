package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/netlab"
)

// options are what a run is told.
type options struct {
	restarts  int           // committed upgrades, over the modes together; 0 means as many as fit
	duration  time.Duration // over the modes together; 0 means no limit
	seed      uint64
	modes     []handoff.Mode
	quick     bool    // no fault that takes seconds
	faulty    float64 // part of the upgrades that a fault befalls
	only      string  // part of the names of faults; empty means all
	without   string  // part of the names of faults that are left out; empty means none
	link      time.Duration
	pause     time.Duration // at most, between the requests of a client
	idle      []string      // parts of the names of kinds of clients that are left out
	state     string        // a small file system for the state, or empty
	artifacts string        // where the account of a failure goes
	shutdown  bool          // the control
	clock     bool          // the clock on the wall is ours to step
	slow      int           // multiplies the limits, for a slow machine; 0 means 1
	progress  func(string)
}

// limit is a limit, on this machine.
func (o options) limit(d time.Duration) time.Duration { return d * time.Duration(max(1, o.slow)) }

// Limits of a service of the gauntlet, on a machine that isn't slow.
const (
	readyTimeout  = 6 * time.Second
	lingerTimeout = 15 * time.Second
	// slack is what a busy machine may take longer.
	slack = 20 * time.Second
	// every is the number of rounds from one comparison of the ledgers to the
	// next, if nothing fails.
	every = 20
)

// errFound says that something was lost or left: the result tells.
var errFound = errors.New("lost or left")

// drive does the whole run.
func drive(ctx context.Context, o options, cmd command) (*result, error) {
	res := newResult(o.seed)
	began := time.Now()
	defer func() { res.Seconds = time.Since(began).Seconds() }()
	if err := adopt(); err != nil {
		return res, err
	}
	for i, mode := range o.modes {
		// What one mode has left the next ones may have.
		left := len(o.modes) - i
		part := o
		part.restarts = 0
		if o.restarts > 0 {
			part.restarts = (o.restarts - res.Upgrades + left - 1) / left
		}
		if o.duration > 0 {
			part.duration = (o.duration - time.Since(began)) / time.Duration(left)
		}
		m, err := driveMode(ctx, part, mode, rand.New(rand.NewPCG(o.seed, uint64(mode))), cmd, res)
		res.add(m)
		if err != nil {
			return res, fmt.Errorf("%v: %w", mode, err)
		}
	}
	return res, nil
}

// host is who a namespace is made for.
type host struct{ cleanups []func() }

type hostFailure string

func (h *host) Helper() {}

func (h *host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *host) Fatalf(format string, args ...any) { panic(hostFailure(fmt.Sprintf(format, args...))) }

func (h *host) close() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}

// newLink makes a link, which ends with h.
func newLink(h *host, delay time.Duration) (link *netlab.Link, err error) {
	defer func() {
		if f, ok := recover().(hostFailure); ok {
			err = errors.New(string(f))
		}
	}()
	return netlab.NewLink(h, delay), nil
}

// run is the run of a mode.
type run struct {
	*rig
	options
	judge  judge
	rng    *rand.Rand
	res    *modeResult
	whole  *result
	base   belongings
	wall   wall
	rounds int
	failed uint64 // requests, when the ledgers were compared last
	since  int    // rounds since then
}

func driveMode(ctx context.Context, o options, mode handoff.Mode, rng *rand.Rand, cmd command, whole *result) (res *modeResult, err error) {
	res = newModeResult(mode)
	began := time.Now()
	defer func() { res.Seconds = time.Since(began).Seconds() }()
	dir, err := os.MkdirTemp("", "gauntlet") // short: unix(7) allows 108 bytes
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var h host
	defer h.close()
	var link *netlab.Link
	if o.link > 0 {
		if link, err = newLink(&h, o.link/2); err != nil {
			return res, err
		}
	}
	r, err := newRig(dir, cmd, serviceSettings{Mode: mode, State: o.state, Ready: o.limit(readyTimeout), Until: o.limit(lingerTimeout), Shutdown: o.shutdown}, clientSettings{Pause: o.pause, Without: o.idle}, link)
	if err != nil {
		return res, err
	}
	defer r.close()
	d := &run{rig: r, options: o, rng: rng, res: res, whole: whole, wall: newWall()}
	if o.clock {
		defer func() { err = errors.Join(err, d.wall.step(0)) }()
	}
	err = d.all(ctx, began)
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, d.account(ctx, err))
	}
	return res, err
}

// all does all rounds.
func (d *run) all(ctx context.Context, began time.Time) error {
	pid, err := d.firstStart(ctx)
	if err != nil {
		return err
	}
	if err := d.startClients(false); err != nil {
		return err
	}
	if d.rig.link != nil {
		if err := d.startClients(true); err != nil {
			return err
		}
	}
	last := time.Now()
	for {
		var f *fault
		if d.rounds > 0 && d.rng.Float64() < d.faulty {
			f = d.pick()
		}
		if pid, err = d.round(ctx, pid, f); err != nil {
			return err
		}
		d.rounds++
		over := d.restarts > 0 && d.res.Upgrades >= d.restarts || d.duration > 0 && time.Since(began) >= d.duration || ctx.Err() != nil
		m, err := d.tell("count", true)
		if err != nil {
			return err
		}
		d.res.live = m.Requests
		if d.since++; m.Failed != d.failed || d.since >= every || over {
			if err := d.compare(ctx, pid); err != nil {
				return err
			}
			d.failed, d.since = m.Failed, 0
		}
		if now := time.Now(); d.progress != nil && (over || now.Sub(last) > 200*time.Millisecond) {
			last = now
			d.progress(d.status())
		}
		if over {
			return ctx.Err()
		}
	}
}

func (d *run) status() string {
	t := d.whole
	return fmt.Sprintf("%-8v %d upgrades, %d requests, %d faults, %d lost  (all modes: %d upgrades, %d requests)",
		d.res.Mode, d.res.Upgrades, d.res.live, d.res.faults(), d.res.Lost, t.Upgrades+d.res.Upgrades, t.Requests+d.res.live)
}

// pick chooses a fault that can happen here.
func (d *run) pick() *fault {
	var can []fault
	for _, f := range faults() {
		switch {
		case f.needs&needLink != 0 && d.rig.link == nil,
			f.needs&needDisk != 0 && d.state == "",
			f.needs&needClock != 0 && !d.clock,
			f.needs&needPatience != 0 && (d.quick || d.rng.Float64() < 0.8), // they would take all the time
			!strings.Contains(f.name, d.only), d.without != "" && strings.Contains(f.name, d.without):
			continue
		}
		can = append(can, f)
	}
	if len(can) == 0 {
		return nil
	}
	return &can[d.rng.IntN(len(can))]
}

// A round is one upgrade, with what befalls it.
type round struct {
	*run
	fault     *fault
	pred      int           // who served when it began
	probation time.Duration // of pred
	first     int           // the index of the round's first message
	killed    role          // who was
	killedAt  int           // the index of the next message then
	extra     int           // a process that was started beside
	hand      bool          // the successor is started by hand
	started   int           // the process ID of that
}

// die notes the end of a process by force.
func (rd *round) die(pid int, at int64) {
	rd.judge.deaths = append(rd.judge.deaths, death{uint32(pid), at})
}

// trigger starts the upgrade.
func (rd *round) trigger() error {
	if rd.hand {
		var err error
		rd.started, err = rd.start()
		return err
	}
	return os.NewSyscallError("kill", syscall.Kill(rd.pred, syscall.SIGUSR2))
}

// round upgrades once and returns who serves then.
func (d *run) round(ctx context.Context, pred int, f *fault) (int, error) {
	rd := &round{run: d, fault: f, pred: pred, first: d.count(), probation: defaultProbation}
	if byHand(d.set.Mode) && d.rounds > 0 {
		rd.hand = d.rng.IntN(6) == 0
	}
	var p plan
	name := "none"
	if f != nil {
		p, name = f.plan, f.name
		if f.triggers {
			rd.hand = false
		}
	}
	if err := p.write(d.set.Notes); err != nil {
		return 0, err
	}
	limit, cancel := context.WithTimeoutCause(ctx, d.limit(readyTimeout+lingerTimeout+2*slack), fmt.Errorf("round %d, fault %q: it did not come to its end", d.rounds, name))
	defer cancel()
	began := now()
	if f == nil || !f.triggers {
		if err := rd.trigger(); err != nil {
			return 0, fmt.Errorf("round %d, fault %q: trigger: %w", d.rounds, name, err)
		}
	}
	happened := false
	if f != nil && f.do != nil {
		var err error
		if happened, err = f.do(limit, rd); err != nil {
			return 0, fmt.Errorf("round %d, fault %q: %w", d.rounds, name, err)
		}
	}
	serves, err := rd.settle(limit)
	if err != nil {
		return 0, err
	}
	for _, m := range d.heard(rd.first) {
		if m.Kind == "plan" {
			happened = true
			if f.plan.How == howExit0 || f.plan.How == howExit1 || f.plan.How == howPanic || f.plan.How == howEat {
				rd.die(m.PID, m.At)
			}
		}
		if len(m.Cut) > 0 {
			d.res.Cut += total(m.Cut)
		}
		if passed := m.Moved + m.Cut[handoffhttp.CutInDoubt]; passed > 0 && m.To != 0 {
			rd.judge.move(uint32(m.PID), m.To, passed)
		}
	}
	if f != nil {
		if happened {
			d.res.Faults[name]++
		} else {
			d.res.Missed[name]++
		}
	}
	if err := rd.check(serves, happened); err != nil {
		return 0, fmt.Errorf("round %d, fault %q: %w", d.rounds, name, err)
	}
	for _, m := range d.heard(rd.first) {
		if m.Kind == string(handoff.EventOwner) && m.PID != pred {
			d.res.Upgrades++
		}
	}
	if serves == 0 {
		// We are its supervisor.
		if serves, err = d.firstStart(limit); err != nil {
			return 0, err
		}
		from := began
		for _, dead := range d.judge.deaths {
			if dead.at >= began {
				from = max(began, dead.at)
			}
		}
		d.judge.outages = append(d.judge.outages, span{from, now()})
		d.res.Supervised++
	}
	_ = os.Remove(filepath.Join(d.set.Notes, planName)) // nobody has read it
	return serves, rd.nothingLeft(limit, serves)
}

// settle waits until one process serves and no other is left, or until all have
// ended, and returns the one that serves or 0.
func (rd *round) settle(ctx context.Context) (int, error) {
	serves := -1
	err := rd.until(ctx, rd.first, func(ms []message) bool {
		if running(rd.pred) && !rd.over(ms) && !rd.refused(ms) {
			return false
		}
		if rd.hangs(ms) { // nobody but us has started it
			rd.die(rd.started, now())
			_ = syscall.Kill(rd.started, syscall.SIGKILL) // it may have ended
		}
		if rd.known() > 1 { // to look at all processes takes a while
			return false
		}
		pids := rd.processes()
		switch {
		case len(pids) == 0:
			serves = 0
			return true
		case len(pids) > 1 || rd.owner() != pids[0]:
			return false
		}
		pid := pids[0]
		under := 0
		owns := pid == rd.pred
		for _, m := range ms {
			if m.PID != pid {
				continue
			}
			switch handoff.EventKind(m.Kind) {
			case handoff.EventUpgradeStarted:
				under++
			case handoff.EventUpgradeFailed, handoff.EventCommitted:
				under--
			case handoff.EventOwner:
				owns = true
			}
		}
		if !owns || under > 0 {
			return false
		}
		serves = pid
		return true
	})
	if err != nil {
		return 0, fmt.Errorf("%w: left: %v, the PID file names %d", err, rd.processes(), rd.owner())
	}
	return serves, nil
}

// hangs reports whether a successor that was started by hand hangs, and its
// upgrade has failed.
func (rd *round) hangs(ms []message) bool {
	return rd.hand && rd.fault != nil && rd.fault.plan.How == howHang && running(rd.started) &&
		slices.ContainsFunc(ms, func(m message) bool { return m.PID == rd.pred && m.Kind == string(handoff.EventUpgradeFailed) })
}

// refused reports whether a successor that was started by hand was not let in, or
// has not come so far as to ask.
func (rd *round) refused(ms []message) bool {
	return rd.hand && !running(rd.started) || rd.hand && slices.ContainsFunc(ms, func(m message) bool { return m.PID != rd.pred && m.Kind == "failed" })
}

// check compares what came of the upgrade with what must come.
func (rd *round) check(serves int, happened bool) error {
	all := rd.heard(rd.first)
	said := func(ms []message, pred bool, kind handoff.EventKind) bool {
		return slices.ContainsFunc(ms, func(m message) bool { return (m.PID == rd.pred) == pred && m.Kind == string(kind) })
	}
	var fate fate = mustCommit
	if rd.fault != nil {
		fate = rd.fault.fate
		if !happened {
			fate = mayEither
			if rd.killed == "" && rd.fault.plan.How == "" {
				fate = mayEither
			}
		}
	}
	switch fate {
	case mustCommit, successorIs:
		if serves == rd.pred || serves == 0 {
			return fmt.Errorf("process %d serves, the successor of %d must", serves, rd.pred)
		}
	case mustFail:
		if serves != rd.pred {
			return fmt.Errorf("process %d serves, the predecessor %d must", serves, rd.pred)
		}
	case mayEither:
		if serves == 0 {
			return fmt.Errorf("nobody serves after process %d", rd.pred)
		}
	case byTheTable:
		switch {
		case rd.killed == predecessor:
			before := all[:rd.killedAt-rd.first]
			joined := said(before, false, handoff.EventJoined) || rd.set.Mode == handoff.Inherit && !rd.hand && said(before, false, "started")
			if serves == 0 && joined {
				return errors.New("nobody serves, and the successor had the sockets when its predecessor was killed")
			}
		case serves == 0 && !said(all, true, handoff.EventCommitted):
			return errors.New("nobody serves, and the successor died before the commit")
		case serves != 0 && serves != rd.pred:
			return fmt.Errorf("process %d serves, the predecessor %d must", serves, rd.pred)
		}
	}
	return nil
}

// nothingLeft compares what there is with what there was at first.
func (rd *round) nothingLeft(ctx context.Context, serves int) error {
	if rd.rounds == 0 {
		var err error
		if rd.base, err = rd.belongingsOf(serves); err != nil {
			return err
		}
		rd.base.budget = 2*rd.base.rss + 64<<20
		return nil
	}
	var more []string
	err := eventually(ctx, func() bool {
		b, err := rd.belongingsOf(serves)
		if err != nil {
			more = []string{err.Error()}
			return false
		}
		more = b.more(rd.base)
		return len(more) == 0
	})
	if err != nil {
		rd.res.Left = append(rd.res.Left, more...)
		return fmt.Errorf("%w: left: %s", errFound, strings.Join(more, "; "))
	}
	return nil
}

// compare has the clients hold, compares the ledgers and begins new ones.
func (d *run) compare(ctx context.Context, serves int) error {
	if _, err := d.tell("hold", true); err != nil {
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, d.limit(slack), errors.New("the service has connections, and its clients have closed them"))
	defer cancel()
	err := eventually(limit, func() bool {
		b, err := d.belongingsOf(serves)
		return err == nil && b.conns == 0
	})
	if err != nil {
		return err
	}
	path := filepath.Join(d.set.Notes, "served")
	entries, err := readRecords(path, entrySize, parseEntry)
	if err != nil {
		return err
	}
	if err := os.Truncate(path, 0); err != nil {
		return err
	}
	var outcomes []outcome
	for i := range d.clients {
		path := filepath.Join(d.set.Notes, fmt.Sprintf("client-%d", i+1))
		more, err := readRecords(path, outcomeSize, parseOutcome)
		if err != nil {
			return err
		}
		outcomes = append(outcomes, more...)
		if err := os.Truncate(path, 0); err != nil {
			return err
		}
	}
	tally, findings := d.judge.settle(entries, outcomes)
	lost := d.res.count(tally, findings)
	if lost > 0 {
		return fmt.Errorf("%w: %d requests: see the findings", errFound, lost)
	}
	d.judge = judge{} // all that it knows is over
	_, err = d.tell("go", false)
	return err
}

// account writes down what there is to know about a failure.
func (d *run) account(ctx context.Context, why error) error {
	dir := filepath.Join(d.artifacts, fmt.Sprintf("gauntlet-%v-%d", d.res.Mode, d.seed))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d, mode %v, round %d\n%v\n\nfindings:\n", d.seed, d.res.Mode, d.rounds, why)
	for _, f := range d.res.Findings {
		fmt.Fprintln(&text, f)
	}
	fmt.Fprintf(&text, "\ndeaths: %+v\noutages: %+v\n\nmessages:\n", d.judge.deaths, d.judge.outages)
	ms := d.heard(0)
	for _, m := range ms[max(0, len(ms)-200):] {
		fmt.Fprintf(&text, "%.6f %+v\n", seconds(m.At), m)
	}
	errs := []error{
		os.WriteFile(filepath.Join(dir, "story"), []byte(text.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "sockets"), d.sockets(), 0o600),
	}
	// Their goroutines go to the log.
	pids := d.processes()
	for _, pid := range pids {
		errs = append(errs, os.WriteFile(filepath.Join(dir, fmt.Sprintf("descriptors-%d", pid)), descriptors(pid), 0o600))
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT) // ended is as good
		_ = syscall.Kill(pid, syscall.SIGQUIT)
	}
	limit, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = eventually(limit, func() bool { return !slices.ContainsFunc(pids, running) }) // what there is by then
	errs = append(errs, copyFile(filepath.Join(dir, "log"), d.log.Name()))
	d.res.Account = dir
	return errors.Join(errs...)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}
