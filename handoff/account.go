package handoff

import (
	"errors"
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/conns"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// An account builds the Report of an upgrade. It belongs to the goroutine that runs
// the upgrade; others get copies.
type account struct {
	report   Report
	phase    session.Phase
	entered  time.Time // phase
	accepted uint64    // by this process before the upgrade
	ready    bool      // the successor was
}

// newAccount begins the account of an upgrade that self starts as the predecessor.
func newAccount(generation uint64, mode Mode, self Process, accepted uint64) *account {
	now := time.Now()
	return &account{
		report: Report{
			Generation: generation, Mode: mode, Predecessor: self, Started: now,
			Queue: -1, HalfOpen: -1,
		},
		entered:  now,
		accepted: accepted,
	}
}

// copy returns the account so far.
func (a *account) copy() *Report {
	r := a.report
	return &r
}

// enter notes the time that the phase before ph took: the one in which an upgrade
// has failed, too.
func (a *account) enter(ph session.Phase) {
	now := time.Now()
	took := now.Sub(a.entered)
	a.entered = now
	d := &a.report.Durations
	switch a.phase {
	case session.PhaseWaiting:
		d.Start += took // the wait begins after the start
	case session.PhaseTransfer:
		d.Transfer = took
	case session.PhaseWarming:
		d.Warming = took
	case session.PhaseProbation:
		d.Probation = took
	case session.PhaseCommitting:
		d.Commit = took
	}
	a.phase = ph
	a.ready = a.ready || ph == session.PhaseProbation
}

// pause notes what the predecessor leaves to its successor when it stops accepting.
func (a *account) pause(accepted uint64, queue, halfOpen int) wire.Paused {
	r := &a.report
	r.AcceptedBefore, r.Queue, r.HalfOpen = accepted-a.accepted, queue, halfOpen
	return wire.Paused{Queue: int64(queue), HalfOpen: int64(halfOpen), Accepted: r.AcceptedBefore}
}

// converse notes what the conversation has told of the successor.
func (a *account) converse(res session.Result) {
	a.report.AcceptedAfter = res.Trial.Accepted
	for _, text := range res.Trial.Warnings {
		a.warn(text)
	}
	if res.Hello.PID != 0 {
		a.report.Successor = Process{PID: int(res.Hello.PID), Version: res.Hello.Build}
	}
}

// warn notes what an operator should look at.
func (a *account) warn(text string) {
	a.report.Warnings = append(slices.Clip(a.report.Warnings), text) // others have copies
}

// end closes the account of an upgrade that err ended, or of a committed one.
func (a *account) end(err error) Outcome {
	r := &a.report
	r.Durations.Total = time.Since(r.Started)
	switch {
	case err == nil:
		r.Outcome = OutcomeCommitted
	case a.ready || errors.Is(err, ErrRolledBack):
		r.Outcome, r.Reason = OutcomeRolledBack, err.Error()
	default:
		r.Outcome, r.Reason = OutcomeFailed, err.Error()
	}
	return r.Outcome
}

// lingered returns r, the account of a committed upgrade, with that of the linger.
func (r Report) lingered(c conns.Counts) Report {
	r.Moved, r.Cut, r.CutBy = c.Moved, c.Cut, c.CutBy
	r.Durations.Linger = time.Since(r.Started) - r.Durations.Total
	return r
}
