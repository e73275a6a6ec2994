package handoff

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// entered notes that the conversation has come to a phase.
func (u *Upgrader) entered(up *upgrade, ph session.Phase) {
	up.account.enter(ph)
	kind := EventKind("")
	switch ph {
	case session.PhaseTransfer:
		kind = EventTransfer
	case session.PhaseWarming:
		if up.child != nil {
			up.child.Stderr.CloseWriter()
		}
		kind = EventWarming
	case session.PhaseProbation:
		kind = EventPaused
	case session.PhaseCommitting:
		u.control.Pause() // the successor answers there from now on
		kind = EventCommitting
	default:
		return
	}
	u.emit(Event{Kind: kind, Report: up.account.copy()})
}

// committed leaves the sockets to the successor.
func (u *Upgrader) committed(up *upgrade, res session.Result) {
	if up.holder != nil {
		// Before Shutdown can say Released: what the successor has are the sockets.
		up.holder.Release(wire.KindListener, wire.KindPacket)
	}
	if up.inherit {
		// The successor has written to tableflip before it wrote to us. tableflip
		// must have read that, or its Stop would kill the successor.
		select {
		case <-up.ready:
		case <-up.child.Done():
		}
	}
	if spawn.Same(up.account.report.Successor.PID) {
		up.account.warn("the successor runs the same program file as its predecessor: if this upgrade was to bring a new version, it is not at " + u.cfg.program.Path)
	}
	l := res.Lingering
	u.owner.ask(func(s *state) { s.lingering = l })
	if err := u.table.Release(); err != nil {
		u.log.Warn("did not close a socket that the successor has as well", "error", err)
	}
	if err := u.mover.Stop(); err != nil {
		u.log.Warn("did not close a socket that the successor has as well", "error", err)
	}
	u.flows.Offer()
	u.control.Shut()
	_, _ = u.control.Drop() // the successor has it
	by := up.account.report.Successor
	u.systemd.Replaced(systemd.Successor{PID: by.PID, Generation: up.account.report.Generation, Version: by.Version, OtherUnit: up.child == nil})
	if l != nil {
		u.released(l, wire.KindListener)
		u.wg.Go(l.Run)   // ends with Bye or the conversation
		u.wg.Go(func() { // ends with the last older predecessor
			defer close(u.passed)
			u.passOn(l)
		})
	}
	u.leaveKept(up)
	up.account.report.Flows = u.flowStatus()
	up.account.report.Open = u.conns.Open()
	up.account.end(nil)
	report := up.account.copy()
	u.log.Info("upgrade committed", report.fields()...)
	for _, text := range report.Warnings {
		u.log.Warn("upgrade committed: " + text)
	}
	u.notice(strings.Join(append([]string{strings.TrimSpace(fmt.Sprintf("upgrade committed: the sockets are those of pid %d %s", by.PID, by.Version))}, report.Warnings...), "; "))
	u.history.record(*report)
	u.owner.ask(func(s *state) {
		s.replaced = report
		_, _ = u.step(s, event{kind: lifecycle.Commit}) // nothing refuses it
	})
	u.emit(Event{Kind: EventCommitted, Report: report})
	u.systemd.Then(func() {
		if l != nil {
			u.sendHistory(l) // it says, too, that systemd knows the successor
		}
	})
	if up.child != nil {
		up.child.Leave()
		u.wg.Go(func() { // ends with closing
			<-u.closing
			up.child.Release()
		})
	}
	u.wg.Go(func() { u.watchLinger(l) }) // ends with closing
	u.finish(up, nil, Event{Kind: EventLingering, Report: report})
}

// failed ends an upgrade without a commit: this process serves as before.
func (u *Upgrader) failed(up *upgrade, res session.Result, cause error) {
	u.table.Keep(nil)
	u.takeFlows() // a successor may have them that was never ready
	u.resumeMove(up, res)
	if up.child != nil {
		u.finishChild(up)
	}
	err := &UpgradeError{PID: up.account.report.Successor.PID, Err: up.obituary(cause)}
	silent, timeout := res.Hello.PID == 0 && !errors.Is(err.Err, ErrStart), errors.Is(err.Err, ErrTimeout)
	switch {
	case silent && up.inherit && (timeout || errors.Is(err.Err, ErrSuccessorDied)):
		err.Err = fmt.Errorf("%w: the successor has not called New: in mode inherit, the text that it wrote before is only in the standard error of this service", err.Err)
	case silent && up.child != nil && errors.Is(err.Err, ErrSuccessorDied) && closedWithin(context.Background(), 0, up.child.Done()) && up.child.Err() == nil:
		err.Err = fmt.Errorf("%w, and New was not called: a script that starts the program must exec it, or wait for it", err.Err)
	case silent && timeout && !strings.Contains(err.Err.Error(), "New was"):
		err.Err = fmt.Errorf("%w: New was not called", err.Err)
	}
	if res.Unready != "" && errors.Is(err.Err, ErrTimeout) {
		err.Err = fmt.Errorf("%w; %s", err.Err, res.Unready)
	}
	if err := u.pid.Clean(); err != nil {
		u.log.Warn("did not remove the PID file that a failed successor has prepared", "error", err)
	}
	if up.child != nil {
		err.Stderr = up.child.Stderr.Tail()
	}
	up.account.report.Flows = u.flowStatus()
	err.Outcome = up.account.end(err.Err)
	report := up.account.copy()
	fields := report.fields()
	if len(err.Stderr) > 0 {
		fields = append(fields, "stderr", strings.Join(err.Stderr, " | "))
	}
	u.log.Error("upgrade failed", fields...)
	does := "serves on"
	if u.life().Done() {
		does = "ends"
	}
	u.notice("upgrade failed, this process " + does + ": " + err.Error())
	u.history.record(*report) // which Status shows
	u.systemd.UpgradeFailed(u.Generation(), report.Reason)
	u.finish(up, err, Event{Kind: EventUpgradeFailed, Report: report, Err: err})
}

// finishChild leaves no process of a successor that has failed: one that has accepted
// connections gets the linger limit for them, any other was killed before. Its standard
// error is copied until then.
func (u *Upgrader) finishChild(up *upgrade) {
	c := up.child
	// The error includes what it has written: give it a moment to end.
	closedWithin(context.Background(), time.Second, c.Done())
	hold := u.failures.Hold(func() int { return 0 })
	u.wg.Go(func() { // ends with the process, which the limit or closing ends
		defer hold.Release(nil)
		defer up.unwatch()
		c.End(u.cfg.LingerTimeout, u.closing)
		if up.inherit {
			runtime.GC() // tableflip leaves its ends of two pipes to the collector
		}
	})
}

// obituary returns how the process of a successor that has died ended, if that is known.
// The end of the conversation comes first: the kernel closes what a process has open
// before wait(2) returns. The rollback does not wait for that, only the report does.
func (up *upgrade) obituary(cause error) error {
	var e *session.Error
	if up.child == nil || !errors.As(cause, &e) || e.Reason != failure.SuccessorDied {
		return cause
	}
	select {
	case <-up.child.Done():
		return session.Ended(up.child.Err())
	default: // it lives, or the cause says why it has ended
		return cause
	}
}

// finish ends the upgrade. The next one begins after the last event.
func (u *Upgrader) finish(up *upgrade, err error, last Event) {
	u.owner.ask(func(s *state) {
		_, _ = u.step(s, event{kind: lifecycle.Fail}) // if it has not committed
		s.upgrade = nil
		u.publish(s, last)
	})
	up.err = err
	up.end()
	if err == nil || up.child == nil {
		up.unwatch() // else finishChild does
	}
	up.dismiss()
}
