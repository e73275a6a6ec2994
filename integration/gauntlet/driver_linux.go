package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/netlab"
)

// options configure a run.
type options struct {
	restarts  int           // committed upgrades, over the modes together; 0 means as many as fit
	duration  time.Duration // over the modes together; 0 means no limit
	seed      uint64
	modes     []handoff.Mode
	quick     bool    // no fault that takes seconds
	faulty    float64 // part of the upgrades that a fault befalls
	hand      float64 // part of the successors that are started by hand, where the mode allows it
	filtered  float64 // part of the processes started by the driver whose system calls can fail, and those of their successors
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
	// slack is the extra time that a busy machine may need.
	slack = 20 * time.Second
	// every is the number of rounds from one comparison of the ledgers to the
	// next, if nothing fails.
	every = 20
)

// defaultFiltered is the part of the processes whose system calls the driver answers.
const defaultFiltered = 0.5

// defaultHand is the part of the successors that are started by hand.
const defaultHand = 1.0 / 6

// errFound says that a request was lost or something was left; the result has the
// details.
var errFound = errors.New("lost or left")

// errReplaced says that a process has upgraded once more.
var errReplaced = errors.New("replaced")

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
		m, err := driveMode(ctx, part, mode, rand.New(rand.NewPCG(o.seed, uint64(len(mode)) /* differs from mode to mode */)), cmd, res)
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
	judge    judge
	rng      *rand.Rand
	res      *modeResult
	whole    *result
	base     belongings
	wall     wall
	rounds   int
	failed   uint64 // requests, when the ledgers were compared last
	since    int    // rounds since then
	compared int    // messages that compare has seen
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
	d.filter = d.rng.Float64() < d.options.filtered
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
			f = d.pick(pid)
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
func (d *run) pick(pred int) *fault {
	var can []fault
	calls := filtered(pred)
	for _, f := range faults() {
		switch {
		case f.needs&needLink != 0 && d.rig.link == nil,
			f.needs&needDisk != 0 && d.state == "",
			f.needs&needClock != 0 && !d.clock,
			f.needs&needHand != 0 && !byHand(d.set.Mode),
			f.needs&needCalls != 0 && !calls,
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
	// Only now: the last message of a process may arrive after its end is known.
	for _, m := range d.received(d.compared) {
		d.compared++
		if passed := m.Moved + m.Cut[handoffhttp.CutInDoubt]; passed > 0 && m.To != 0 {
			d.judge.move(uint32(m.PID), m.To, passed)
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
