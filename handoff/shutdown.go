package handoff

import (
	"context"
	"errors"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// expire ends the linger.
func (u *Upgrader) expire(reason string) {
	if acts, _ := u.post(event{kind: lifecycle.Expire}); !acts.has(lifecycle.CutOff) {
		return
	}
	if n := u.conns.Cut(); n > 0 {
		u.log.Warn("linger ended", "reason", reason, "cut", n)
	}
}

// LingerExpired returns a channel that is closed when open connections have no
// more time: the linger limit has passed, a second stop signal came, or a
// successor has asked for the end because too many predecessors linger.
// Connections that are tracked are closed by then.
func (u *Upgrader) LingerExpired() <-chan struct{} { return u.expired }

// stop begins a graceful end without a successor.
func (u *Upgrader) stop(reason string) {
	acts, _ := u.post(event{kind: lifecycle.Stop, reason: reason})
	for acts.has(lifecycle.Abort) {
		if u.successor.Abort(reason) {
			return // succeed ends the process
		}
		// The predecessor had committed: this process owns the sockets by now.
		acts, _ = u.post(event{kind: lifecycle.Stop, reason: reason})
	}
	if !acts.has(lifecycle.CloseDone) {
		return
	}
	u.log.Info("stopping", "reason", reason)
	u.systemd.Stopping(reason, stopExtension)
	u.wg.Go(func() { u.watchLinger(nil) }) // ends with closing
}

// Shutdown ends the Upgrader. Without a successor it stops accepting and
// closes the sockets; in any case it waits until the tracked connections are
// done, and those that a successor had accepted whose upgrade has failed, up to the
// linger limit or the end of ctx, and closes the rest by force.
// It returns when no goroutine, descriptor or child of the Upgrader is left:
// nil, or ctx's error where that cut connections.
//
// After Shutdown nothing of the Upgrader works any more. It may be called
// again, and from several goroutines: all get the same result. Called from
// [Config.OnEvent], it does not wait for that call to return.
func (u *Upgrader) Shutdown(ctx context.Context) error {
	u.hook.enterShutdown()
	if _, err := u.post(event{kind: lifecycle.Shutdown}); err != nil {
		<-u.shutDone
		return u.shutErr
	}
	u.shutErr = u.shutdown(ctx)
	close(u.shutDone)
	return u.shutErr
}

// Close is Shutdown without patience: open connections that are tracked are
// closed at once.
func (u *Upgrader) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := u.Shutdown(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (u *Upgrader) shutdown(ctx context.Context) error {
	u.stop("shutdown")
	<-u.done
	u.table.Answered(ctx, answerTime)
	u.releasePackets()
	var errs []error
	select {
	case <-u.conns.Idle():
	case <-u.expired:
		u.awaitHolds(ctx)
	case <-ctx.Done():
		if u.conns.Open() > 0 {
			errs = append(errs, ctx.Err())
		}
	}
	u.expire("shutdown")
	if up := u.underWay(); up != nil {
		<-up.over.Done() // it may have committed all the same
	}
	if err := u.awaitFailures(ctx); err != nil && len(errs) == 0 {
		errs = append(errs, err)
	}
	u.systemd.Close()
	if l := u.successorLink(); l != nil {
		u.tellLinger(l) // watchLinger may not have begun
		u.awaitPassed(l)
		c := u.conns.Counts()
		l.Bye(wire.Bye{Moved: c.Moved, Cut: c.Cut})
	}
	close(u.closing)
	u.unfollow()
	errs = append(errs, u.letGo())
	report := u.finishReport()
	_, _ = u.post(event{kind: lifecycle.Close}) // nothing refuses it
	u.emit(Event{Kind: EventStopped, Report: report})
	u.wg.Wait()
	u.hook.wait()
	u.owner.stop()
	u.redirect.Close()
	return errors.Join(errs...)
}

// awaitFailures waits until the successors that have failed have served what they
// had accepted, and ended. It returns ctx's error where that cuts them off.
func (u *Upgrader) awaitFailures(ctx context.Context) error {
	limit, stop := timerAt(u.lingerEnd())
	defer stop()
	over := u.failures.over()
	select {
	case <-over:
	case <-limit:
	case <-u.hurried:
	case <-ctx.Done():
		select {
		case <-over:
		default:
			return ctx.Err()
		}
	}
	return nil
}

// awaitPassed waits until the successor talks to the older predecessors: nobody
// else can when this process is gone, and then their connections could not move.
// A successor that lives has answered by then.
func (u *Upgrader) awaitPassed(l *session.Lingering) {
	t := time.NewTimer(u.cfg.hang)
	defer t.Stop()
	select {
	case <-u.passed:
	case <-l.Gone():
	case <-t.C:
	}
}

// answerTime is how long those who read datagrams may take to answer the last.
const answerTime = time.Second

// holdGrace bounds the time that the owners of holds get after the linger limit.
const holdGrace = 10 * time.Second

// awaitHolds waits until the connections that others look after are closed, too,
// and counted in the report.
func (u *Upgrader) awaitHolds(ctx context.Context) {
	t := time.NewTimer(holdGrace)
	defer t.Stop()
	select {
	case <-u.conns.Idle():
	case <-t.C:
		u.log.Warn("connections that a program holds are not closed after the linger limit", "open", u.conns.Open())
	case <-ctx.Done():
	}
}

// releasePackets closes the datagram sockets that a successor has, which is told: it
// can move to its own ones when no other process has duplicates.
func (u *Upgrader) releasePackets() {
	l := u.successorLink()
	if l == nil {
		return
	}
	if err := u.table.DropKind(wire.KindPacket); err != nil {
		u.log.Warn("release sockets", "error", err)
	}
	u.released(l, wire.KindPacket)
}

// letGo closes what is left.
func (u *Upgrader) letGo() error {
	ours := u.life().Owner
	u.control.Shut()
	errs := []error{u.mover.Close(), u.table.Close()}
	dropped, err := u.control.Drop()
	errs = append(errs, err)
	if dropped && ours {
		errs = append(errs, sockets.Unlink(&u.control.Entry))
	}
	if ours {
		errs = append(errs, u.pid.Remove())
	}
	errs = append(errs, u.pid.Unstage())
	if u.engine != nil {
		u.engine.Stop(ours && !u.table.KeepsPath())
	}
	u.received.Close()
	return errors.Join(errs...)
}
