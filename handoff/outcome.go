package handoff

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
)

// entered notes the time of each phase and tells of it.
func (u *Upgrader) entered(up *upgrade, ph session.Phase) {
	now := time.Now()
	took := now.Sub(up.entered)
	up.entered = now
	d := &up.report.Durations
	switch up.phase { // which is over: it may be the one in which the upgrade has failed
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
	up.phase = ph
	switch ph {
	case session.PhaseTransfer:
		u.emit(Event{Kind: EventTransfer, Report: &up.report})
	case session.PhaseWarming:
		if up.child != nil {
			up.child.Stderr.CloseWriter()
		}
		u.emit(Event{Kind: EventWarming, Report: &up.report})
	case session.PhaseProbation:
		up.paused = true
		u.emit(Event{Kind: EventPaused, Report: &up.report})
	case session.PhaseCommitting:
		u.control.Pause() // the successor answers there from now on
		u.emit(Event{Kind: EventCommitting, Report: &up.report})
	case session.PhaseDone:
		d.Total = now.Sub(up.began)
	}
}

// committed leaves everything to the successor.
func (u *Upgrader) committed(up *upgrade, res session.Result) {
	if up.inherit {
		// The successor has written to tableflip before it wrote to us. tableflip
		// must have read that, or its Stop would kill the successor.
		select {
		case <-up.ready:
		case <-up.child.Done():
		}
		u.mu.Lock()
		u.engine.spent = true
		u.mu.Unlock()
	}
	if up.drain != nil {
		up.report.Groups = up.drain.end()
		u.holds.Store(u.table.HasPackets())
	}
	up.report.Outcome = OutcomeCommitted
	up.report.Open = u.conns.open()
	u.log.Info("upgrade committed", up.report.fields()...)
	u.mu.Lock()
	u.ops.totals.upgraded(up.report.Outcome)
	u.lingering, u.report = res.Lingering, &up.report
	u.mu.Unlock()
	if !u.end(phaseLingering, nil) { // a stop came in between: too late for it
		u.mu.Lock()
		u.phase = phaseLingering
		u.mu.Unlock()
	}
	if err := u.table.Release(); err != nil {
		u.log.Warn("release sockets", "error", err)
	}
	if up.drain != nil {
		up.drain.leave() // only now can the successor steer, whose probes nobody here accepts
	}
	u.parted.Store(true)
	u.control.Shut()
	_, _ = u.control.Drop() // the successor has it
	u.states.settle(nil)
	u.emit(Event{Kind: EventCommitted, Report: &up.report})
	if up.child != nil {
		u.wg.Go(func() { // ends with closing
			<-u.closing
			up.child.Release()
		})
	}
	if l := res.Lingering; l != nil {
		// It says, too, that systemd knows the successor.
		report := up.report
		u.systemd.late.Then(func() { u.tellHistory(l, report) })
		passed := make(chan struct{})
		u.mu.Lock()
		u.passed = passed
		u.mu.Unlock()
		u.wg.Go(l.Run)   // ends with Bye or the conversation
		u.wg.Go(func() { // ends with the last older predecessor
			defer close(passed)
			u.passOn(l)
		})
	}
	u.wg.Go(func() { u.watchLinger(res.Lingering) }) // ends with closing
	u.finish(up, nil, Event{Kind: EventLingering, Report: &up.report})
}

// failed goes on as if nothing had been.
func (u *Upgrader) failed(up *upgrade, res session.Result, cause error) {
	if up.drain != nil {
		up.report.Groups = up.drain.end()
		up.drain.failed(res.Parted)
	}
	up.report.Durations.Total = time.Since(up.began)
	if up.child != nil {
		u.finishChild(up.child)
	}
	err := &UpgradeError{PID: up.report.Successor.PID, Err: upgradeError(up.obituary(cause))}
	up.report.Outcome = OutcomeFailed
	if up.paused || errors.Is(err.Err, ErrRolledBack) {
		up.report.Outcome = OutcomeRolledBack
	}
	err.Outcome = up.report.Outcome
	silent := up.inherit && res.Hello.PID == 0 && !errors.Is(err.Err, ErrStart)
	if silent && (errors.Is(err.Err, ErrSuccessorDied) || errors.Is(err.Err, ErrTimeout)) {
		err.Err = fmt.Errorf("%w: its New had not reached this process: in mode inherit what it wrote until then is only in this service's standard error", err.Err)
	}
	if err := u.pid.clean(); err != nil {
		u.log.Warn("what a successor has left", "error", err)
	}
	if up.child != nil {
		err.Stderr = up.child.Stderr.Tail()
	}
	up.report.Reason = err.Err.Error()
	u.states.settle(err)
	u.mu.Lock()
	u.ops.totals.upgraded(up.report.Outcome)
	u.mu.Unlock()
	fields := up.report.fields()
	if len(err.Stderr) > 0 {
		fields = append(fields, "stderr", strings.Join(err.Stderr, " | "))
	}
	u.log.Error("upgrade failed", fields...)
	u.finish(up, err, Event{Kind: EventUpgradeFailed, Report: &up.report, Err: err})
}

// finishChild leaves no process of a successor that has failed: one that has accepted
// connections gets the linger limit for them, any other was killed before. Its standard
// error is copied until then.
func (u *Upgrader) finishChild(c *spawn.Process) {
	// The error includes what it has written: give it a moment to end.
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-c.Done():
	case <-t.C:
	}
	u.failures.begin()
	u.wg.Go(func() { // ends with the process, which the limit or closing ends
		defer u.failures.end()
		c.End(u.cfg.LingerTimeout, u.closing)
	})
}

// obituary returns how the process of a successor that has died ended, if that is known.
// The end of the conversation comes first: the kernel closes what a process has open
// before wait(2) returns. The rollback does not wait for that, only the report does.
func (up *upgrade) obituary(cause error) error {
	var e *session.Error
	if up.child == nil || !errors.As(cause, &e) || e.Reason != session.ReasonDied {
		return cause
	}
	select {
	case <-up.child.Done():
		return session.Ended(up.child.Err())
	default: // the cause says it, or it lives on
		return cause
	}
}

// finish ends the upgrade for those who wait for it. Who hears of last can begin
// the next one.
func (u *Upgrader) finish(up *upgrade, err error, last Event) {
	u.mu.Lock()
	u.upgrade = nil
	u.reports = append(u.reports, up.report)
	u.reports = u.reports[max(0, len(u.reports)-maxReports):]
	u.mu.Unlock()
	u.emit(last)
	up.err = err
	up.end()
	up.dismiss()
}
