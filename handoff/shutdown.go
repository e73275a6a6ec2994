package handoff

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// expire ends the linger.
func (u *Upgrader) expire(reason string) {
	if acts, _ := u.post(event{kind: lifecycle.Expire}); !acts.has(lifecycle.CutOff) {
		return
	}
	if n := u.conns.Cut(); n > 0 {
		u.log.Warn("cut the open connections", "reason", reason, "cut", n)
	}
}

// LingerExpired returns a channel that is closed when open connections have no more time:
// the linger limit has passed, the process has received a second stop signal, or its
// successor has ended the linger because too many predecessors linger. The Upgrader
// closes the tracked connections before it closes the channel.
func (u *Upgrader) LingerExpired() <-chan struct{} { return u.expired }

// beginStop is stop, after the functions of BeforeStop. It does not wait for these.
func (u *Upgrader) beginStop(reason string) {
	u.before.mu.Lock()
	none := len(u.before.all) == 0
	u.before.mu.Unlock()
	if none {
		u.stop(reason)
		return
	}
	u.wg.Go(func() { // ends with the functions
		u.prepare(context.Background(), reason)
		u.stop(reason)
	})
}

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

// Shutdown ends the Upgrader. Without a successor it stops accepting, after the functions
// of BeforeStop, and closes the sockets. It waits until the tracked connections are closed. If a successor's upgrade
// has failed, it waits for the connections that this successor accepted, too. At the
// linger limit, or at the end of ctx, it closes the rest by force. It returns when no
// goroutine, descriptor or child of the Upgrader is left: nil, or ctx's error if the end
// of ctx has cut connections.
//
// After Shutdown no method of the Upgrader has an effect. Shutdown may be called again,
// and from several goroutines: all calls return the same result. A call from
// [Config.OnEvent] does not wait for OnEvent to return.
func (u *Upgrader) Shutdown(ctx context.Context) error {
	u.hook.enterShutdown()
	if _, err := u.post(event{kind: lifecycle.Shutdown}); err != nil {
		<-u.shutDone
		return u.shutErr
	}
	cut, err := u.shutdown(ctx)
	u.shutErr, u.closeErr = errors.Join(cut, err), err
	if !errors.Is(cut, context.Canceled) {
		u.closeErr = u.shutErr
	}
	close(u.shutDone)
	return u.shutErr
}

// Close is Shutdown, but closes the tracked connections at once.
func (u *Upgrader) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = u.Shutdown(ctx) // closeErr has the rest
	return u.closeErr
}

// shutdown is Shutdown, once. cut is ctx's error if its end has cut connections.
func (u *Upgrader) shutdown(ctx context.Context) (cut, err error) {
	u.prepare(ctx, "shutdown")
	u.stop("shutdown")
	<-u.done
	<-u.keeper.ended
	u.table.Drain() // an Accept that has a connection tracks it before it returns
	u.table.Answered(ctx, answerTime)
	u.releasePackets()
	select {
	case <-u.conns.Idle():
	case <-u.expired:
		u.awaitHolds(ctx)
	case <-ctx.Done():
		if u.conns.Open() > 0 {
			cut = ctx.Err()
		}
	}
	u.expire("shutdown")
	if up := u.underWay(); up != nil {
		<-up.over.Done() // it may have committed all the same
	}
	if err := u.awaitFailures(ctx); err != nil {
		cut = err
	}
	u.systemd.Close()
	if l := u.successorLink(); l != nil {
		u.tellLinger(l) // watchLinger may not have begun
		// After the end of this process only the successor can talk to the older
		// predecessors, and take their connections. It may be stopped.
		closedWithin(context.Background(), u.cfg.hang, u.passed)
		c := u.conns.Counts()
		l.Bye(wire.Bye{Moved: c.Moved, Cut: c.Cut, CutBy: wireReasons(c.CutBy)})
	}
	close(u.closing)
	u.unfollow()
	err = u.letGo()
	report := u.finishReport()
	_, _ = u.post(event{kind: lifecycle.Close}) // nothing refuses it
	u.emit(Event{Kind: EventStopped, Report: report})
	u.wg.Wait()
	u.hook.wait()
	u.owner.stop()
	u.redirect.Close()
	return cut, err
}

// awaitFailures waits until the successors that have failed have served what they
// had accepted, and ended. It returns ctx's error where that cuts them off.
func (u *Upgrader) awaitFailures(ctx context.Context) error {
	limit, stop := timerAt(u.lingerEnd())
	defer stop()
	over := u.failures.Idle()
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

// answerTime is the time in which the program may answer the last datagram that it has
// read.
const answerTime = time.Second

// holdGrace is the time after the linger limit in which a server may release its hold.
const holdGrace = 10 * time.Second

// awaitHolds waits for the release of all holds, whose connections the report counts.
func (u *Upgrader) awaitHolds(ctx context.Context) {
	if !closedWithin(ctx, holdGrace, u.conns.Idle()) && ctx.Err() == nil {
		u.log.Warn("the server has not closed its connections after the linger limit", "open", u.conns.Open())
	}
}

// releasePackets closes the datagram sockets that the successor has, and says so: in
// mode Drain it can move to its own ones when no other process has duplicates.
func (u *Upgrader) releasePackets() {
	l := u.successorLink()
	if l == nil {
		return
	}
	if err := u.table.DropKind(wire.KindPacket); err != nil {
		u.log.Warn("a datagram socket did not close", "error", err)
	}
	u.released(l, wire.KindPacket)
}

// letGo closes the sockets and removes the files of this process.
func (u *Upgrader) letGo() error {
	ours := u.life().Owner
	errs := []error{u.mover.Close(), u.table.Close(), u.flows.Close()}
	if ours {
		errs = append(errs, u.pid.Remove())
	}
	errs = append(errs, u.pid.Unstage())
	bound := u.successor == nil && u.replacement() == nil // maybe never ready
	errs = append(errs, u.closeControl(ours || bound))
	if u.engine != nil {
		u.engine.Stop(ours && !u.table.KeepsPath())
	}
	u.received.Close()
	return errors.Join(slices.DeleteFunc(errs, u.stays)...)
}

// stays reports whether err says that a file stays because this process may not remove
// it, as one that has dropped root's user since New. The next process replaces the file.
func (u *Upgrader) stays(err error) bool {
	if !errors.Is(err, fs.ErrPermission) {
		return false
	}
	u.log.Warn("a file was not removed, for want of permission: the next start replaces it", "error", err)
	return true
}
