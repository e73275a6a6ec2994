package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A round is one upgrade with its fault.
type round struct {
	*run
	fault     *fault
	pred      int           // the serving process when it began
	probation time.Duration // of pred
	first     int           // the index of the round's first message
	killed    role          // the role that was killed
	killedAt  int           // the index of the next message then
	extra     int           // a process that was started beside
	hand      bool          // the successor is started by hand
	started   int           // the process ID of that
	learnt    int           // the index of the first message that learn has not seen
	planned   bool          // a process has done what its plan says
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
		rd.hand = d.rng.Float64() < d.options.hand
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
	d.filter = d.rng.Float64() < d.options.filtered || f != nil && f.needs&needCalls != 0
	if f != nil && f.wrapped {
		rd.hand = false
		if err := d.wrap(); err != nil {
			return 0, err
		}
	}
	limit, cancel := context.WithTimeoutCause(ctx, d.limit(readyTimeout+lingerTimeout+2*slack), fmt.Errorf("round %d, fault %q: it did not end", d.rounds, name))
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
	rd.learn()
	if err := d.unwrap(); err != nil {
		return 0, err
	}
	if f != nil {
		failed := d.calls.disarm()
		switch {
		case f.needs&needCalls != 0:
			happened = failed
		case f.do == nil && f.plan.How != "":
			happened = rd.planned
		case f.do == nil:
			happened = rd.wrapper() != 0
		}
		if happened {
			d.res.Faults[name]++
		} else {
			d.res.Missed[name]++
		}
	}
	if err := rd.check(serves, happened); err != nil {
		return 0, fmt.Errorf("round %d, fault %q: %w", d.rounds, name, err)
	}
	if serves == 0 {
		// We are its supervisor.
		if serves, err = d.firstStart(limit); err != nil {
			return 0, err
		}
		d.res.Supervised++
		err = rd.outage(began)
	} else if rd.anew(serves) {
		err = rd.outage(began)
	}
	if err != nil {
		return 0, err
	}
	_ = os.Remove(filepath.Join(d.set.Notes, planName)) // if no process has read it
	for {
		err := rd.nothingLeft(limit, serves)
		if !errors.Is(err, errReplaced) {
			return serves, err
		}
		// A signal that arrived after settle.
		if serves, err = rd.settle(limit); err != nil {
			return 0, err
		}
		if serves == 0 {
			return 0, fmt.Errorf("round %d, fault %q: no process serves any more", d.rounds, name)
		}
		rd.learn()
	}
}

// learn handles the messages since its last call.
func (rd *round) learn() {
	from := max(rd.learnt, rd.first)
	ms := rd.received(from)
	rd.learnt = from + len(ms)
	for _, m := range ms {
		if m.Kind == "plan" {
			rd.planned = true
			if rd.fault.plan.fatal() {
				rd.die(m.PID, m.At)
			}
		}
		rd.res.Cut += total(m.Cut)
		if m.Kind == string(handoff.EventOwner) && m.PID != rd.pred && !rd.anew(m.PID) {
			rd.res.Upgrades++
		}
	}
}

// anew reports whether a process has become the first of its line: the connections in
// its predecessor's queues are lost. The death table allows that if the successor was
// started by hand and had no socket yet.
func (rd *round) anew(pid int) bool {
	return rd.hand && pid != rd.pred && slices.ContainsFunc(rd.received(rd.first), func(m message) bool {
		return m.PID == pid && m.Kind == string(handoff.EventOwner) && m.Gen == 1
	})
}

// outage records that no process served, from the death of the serving process in a
// round that ended so, until now.
func (rd *round) outage(began int64) error {
	from := began
	for _, dead := range rd.judge.deaths {
		if dead.at >= began {
			from = max(began, dead.at)
		}
	}
	rd.judge.outages = append(rd.judge.outages, span{from, now()})
	_, err := rd.tell("gone", false)
	return err
}

// settle waits until one process serves and no other is left, or until all have ended.
// It returns the serving process or 0.
func (rd *round) settle(ctx context.Context) (int, error) {
	serves := -1
	err := rd.until(ctx, rd.first, func(ms []message) bool {
		if rd.hangs(ms) { // only the driver has started it
			rd.die(rd.started, now())
			_ = syscall.Kill(rd.started, syscall.SIGKILL) // it may have ended
		}
		if running(rd.pred) && !rd.over(ms) && !rd.refused(ms) {
			return false
		}
		if slices.ContainsFunc(ms, func(m message) bool { return m.Kind == "plan" && rd.fault.plan.fatal() && running(m.PID) }) {
			return false // it may even commit before it has come so far
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
// upgrade has failed, or can't begin.
func (rd *round) hangs(ms []message) bool {
	return rd.hand && rd.fault != nil && rd.fault.plan.How == howHang && running(rd.started) &&
		slices.ContainsFunc(ms, func(m message) bool {
			return m.PID == rd.pred && m.Kind == string(handoff.EventUpgradeFailed) || m.Kind == "plan" && rd.fault.plan.At == atStart
		})
}

// refused reports whether a successor that was started by hand was not let in, or
// has not come so far as to ask.
func (rd *round) refused(ms []message) bool {
	return rd.hand && !running(rd.started) || rd.hand && slices.ContainsFunc(ms, func(m message) bool { return m.PID != rd.pred && m.Kind == "failed" })
}

// check compares the upgrade's result with the required one.
func (rd *round) check(serves int, happened bool) error {
	all := rd.received(rd.first)
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
			return fmt.Errorf("no process serves after process %d", rd.pred)
		}
	case byTheTable:
		switch {
		case rd.killed == predecessor:
			before := all[:rd.killedAt-rd.first]
			joined := said(before, false, handoff.EventJoined) || rd.set.Mode == handoff.Inherit && !rd.hand && said(before, false, "started")
			switch {
			case serves == 0 && joined:
				return errors.New("no process serves, and the successor had the sockets when its predecessor was killed")
			case rd.anew(serves) && joined:
				return fmt.Errorf("process %d has begun anew, and it had the sockets when its predecessor was killed", serves)
			}
		case serves == 0 && !said(all, true, handoff.EventCommitted):
			return errors.New("no process serves, and the successor died before the commit")
		case serves != 0 && serves != rd.pred:
			return fmt.Errorf("process %d serves, the predecessor %d must", serves, rd.pred)
		}
	}
	return nil
}

// nothingLeft compares the processes, files and descriptors with those at first. It
// returns errReplaced if the serving process has ended meanwhile.
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
			return !running(serves)
		}
		more = b.more(rd.base)
		return len(more) == 0 || !running(serves)
	})
	if !running(serves) {
		return errReplaced
	}
	if err != nil {
		rd.res.Left = append(rd.res.Left, more...)
		return fmt.Errorf("%w: left: %s", errFound, strings.Join(more, "; "))
	}
	return nil
}
