package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/stateblob"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// An upgrade is one that this process, as the predecessor, goes through.
type upgrade struct {
	arrivals chan session.Arrival // capacity 1: the successor, once it has said Hello
	cancel   chan *session.Error  // capacity 1
	wanted   context.Context      // ends with the first reason to give up, its cause
	unwant   context.CancelCauseFunc
	over     context.Context     // ends when it is committed or failed
	end      context.CancelFunc  // of over
	err      error               // valid once it is over
	inherit  bool                // waits for a child of tableflip's
	holder   *rebind.Holder      // the successor, once it has said Hello; nil in mode Inherit
	states   *stateblob.Transfer // nil until the successor is there

	executable string // to be started; empty means that of the configuration

	account *account
	child   *spawn.Process // nil for a successor that this process has not started
	ready   chan struct{}  // closed when tableflip says that child is ready; in mode Inherit, else nil
	peer    atomic.Int64   // the successor's pid as the kernel names it; 0 before it is known
}

// giveUp has the upgrade end without a commit, if it still can.
func (up *upgrade) giveUp(e *session.Error) {
	select {
	case up.cancel <- e:
		up.unwant(e)
	default: // somebody was first
	}
}

// givenUp returns why an upgrade is to end that has waited for what must come before
// its successor starts, or nil.
func (up *upgrade) givenUp(waited error) error {
	var e *session.Error
	if !errors.As(context.Cause(up.wanted), &e) {
		return nil
	}
	why := *e
	why.Text = strings.TrimPrefix(why.Text+"; not started yet"+strings.TrimPrefix(waited.Error(), ErrInProgress.Error()), "; ")
	return &why
}

// begin begins an upgrade in a mode, or says why none can begin.
func (u *Upgrader) begin(mode Mode) (*upgrade, error) {
	up := &upgrade{
		arrivals: make(chan session.Arrival, 1),
		cancel:   make(chan *session.Error, 1),
	}
	up.wanted, up.unwant = context.WithCancelCause(context.Background())
	up.over, up.end = context.WithCancel(context.Background())
	accepted := u.table.Accepted()
	var err error
	u.owner.ask(func(s *state) {
		if _, err = u.step(s, event{kind: lifecycle.Begin}); err == nil {
			s.upgrade = up
			up.account = newAccount(s.generation+1, mode, Process{PID: os.Getpid(), Version: u.cfg.Version}, accepted)
		}
	})
	if err != nil {
		return nil, err
	}
	return up, nil
}

// underWay returns the upgrade that is under way, or nil.
func (u *Upgrader) underWay() (up *upgrade) {
	u.owner.ask(func(s *state) { up = s.upgrade })
	return up
}

// Upgrade starts a successor and sees it through. It returns nil when the
// successor is committed: Done is closed then, and this process lingers. Any
// other end leaves this process serving, with no connection lost, and returns
// an *[UpgradeError] that matches [ErrStart], [ErrSuccessorDied], [ErrTimeout],
// [ErrAborted], [ErrRolledBack], [ErrVersion], [ErrTransfer] or
// [ErrProtocol]. [ErrInProgress], [ErrNotReady], [ErrInProbation] and
// [ErrClosed] say that it did not begin, [ErrUnsupported] that it must not: as PID 1 of a container,
// whose end would be the end of the successor.
//
// When ctx ends before the commit, the upgrade is rolled back.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	_, err := u.upgradeTo(ctx, "")
	return err
}

// upgradeTo is Upgrade with another program than the one that Config names; ""
// is that.
func (u *Upgrader) upgradeTo(ctx context.Context, executable string) (Report, error) {
	up, err := u.initiate()
	if err != nil {
		return Report{}, err
	}
	up.executable = executable
	u.wg.Go(func() { u.run(ctx, up) }) // ends with the upgrade, which ctx ends
	<-up.over.Done()
	return up.account.report, up.err
}

// initiate is begin for an upgrade whose successor this process starts.
func (u *Upgrader) initiate() (*upgrade, error) {
	if os.Getpid() == 1 {
		return nil, errPID1
	}
	return u.begin(u.cfg.Mode)
}

// errPID1 says that an upgrade must not begin.
var errPID1 = fmt.Errorf("%w: this process is PID 1 of its PID namespace: the successor would be killed with it when it ends: start it below an init that stays (`docker run --init`, tini), or start the successor in a container of its own, in mode Takeover, on the same control socket", ErrUnsupported)

// Rollback takes the sockets back from a successor that is not committed. It
// returns [ErrNoUpgrade] where there is none. What came of it is what Upgrade
// returns.
func (u *Upgrader) Rollback(reason string) error {
	_, err := u.rollback(reason)
	return err
}

// rollback is Rollback with the upgrade that it ends.
func (u *Upgrader) rollback(reason string) (*upgrade, error) {
	up := u.underWay()
	if up == nil {
		return nil, ErrNoUpgrade
	}
	up.giveUp(&session.Error{Reason: failure.RolledBack, Text: reason})
	return up, nil
}

// run starts the successor and sees the upgrade through.
func (u *Upgrader) run(ctx context.Context, up *upgrade) {
	u.log.Info("upgrade started", "mode", u.cfg.Mode)
	u.emit(Event{Kind: EventUpgradeStarted, Report: up.account.copy()})
	p := &session.Predecessor{Cancel: up.cancel}
	stop := context.AfterFunc(ctx, func() {
		up.giveUp(&session.Error{Reason: failure.Canceled, Err: context.Cause(ctx)})
	})
	defer stop()
	u.systemd.UpgradeStarted(up.wanted, u.Generation(), u.cfg.upgradeTimeout())
	start := u.startSpawn
	if u.cfg.Mode == Inherit {
		start = u.startInherit
	}
	err := start(up, p)
	if errors.Is(err, ErrInProgress) { // a wait has ended
		err = cmp.Or(up.givenUp(err), err)
	}
	if err != nil {
		u.failed(up, session.Result{}, err)
		return
	}
	u.converse(up, p)
}

// startSpawn starts the successor of modes Takeover and Drain.
func (u *Upgrader) startSpawn(up *upgrade, p *session.Predecessor) error {
	program := u.cfg.program
	if up.executable != "" {
		program.Path, program.Name = up.executable, up.executable
	}
	c, conv, err := program.Start()
	if err != nil {
		return err
	}
	up.child, up.account.report.Successor.PID = c, c.PID
	u.wg.Go(func() { u.hear(up, conv) }) // ends with Hello, or with the conversation
	p.Exited, p.Kill, p.Stderr = c.Exited(), c.Kill, c.Stderr.Descriptors
	return nil
}

// hear waits for the successor that has inherited the other end of c.
func (u *Upgrader) hear(up *upgrade, c *net.UnixConn) {
	conn := fdpass.New(c)
	late := make(chan struct{})
	heard := context.AfterFunc(up.over, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // nobody waits for it any more
		close(late)
	})
	link := session.NewWireLink(conn, u.cfg.hang)
	hello, err := up.expectHello(c, link)
	if !heard() {
		<-late
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) { // it may be about to speak
			_ = link.Send(&wire.Refuse{Reason: failure.NoUpgrade, Text: "the upgrade is over"}, nil)
		} else {
			u.log.Debug("conversation", "error", err)
		}
		_ = link.Close()
		if !up.inherit {
			close(up.arrivals)
		}
		return // tableflip tells the end of its child, and another may dial
	}
	up.arrive(session.Arrival{Link: link, Hello: *hello})
}

// expectHello waits for the first message on link, which is over c.
func (up *upgrade) expectHello(c *net.UnixConn, link session.Link) (*wire.Hello, error) {
	if up.inherit {
		if cred, err := fdx.SenderCred(c); err == nil { // else it is not known, or all is over
			up.peer.Store(int64(cred.PID))
		}
	}
	m, fds, err := link.Recv()
	_ = fdx.Close(fds...) // none belong here
	if err != nil {
		return nil, err
	}
	hello, ok := m.(*wire.Hello)
	if !ok {
		return nil, fmt.Errorf("%w: %T instead of a Hello", ErrProtocol, m)
	}
	return hello, nil
}

// arrive hands the successor to the upgrade, if that still waits for it.
func (up *upgrade) arrive(a session.Arrival) {
	select {
	case up.arrivals <- a:
	case <-up.over.Done(): // one has come before it
		_ = a.Link.Close() // which tells it
		return
	}
	select {
	case <-up.over.Done():
		up.dismiss()
	default:
	}
}

// dismiss closes the link of a successor that came too late.
func (up *upgrade) dismiss() {
	select {
	case a, ok := <-up.arrivals:
		if ok {
			_ = a.Link.Close() // which tells it
		}
	default:
	}
}

// startInherit has tableflip start the successor.
func (u *Upgrader) startInherit(up *upgrade, p *session.Predecessor) error {
	if err := inherit.Check(u.cfg.program.Dir, u.cfg.program.Check); err != nil {
		return err
	}
	// tableflip has one child at a time, and does not tell which it is.
	if !u.failures.await(up.wanted, 2*u.cfg.hang) {
		return fmt.Errorf("%w: in mode inherit the last successor must have ended, and it still serves what it had accepted before it was rolled back: try again later, or end it", ErrInProgress)
	}
	wait := up.wanted
	if u.cfg.ReadyTimeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(wait, u.cfg.ReadyTimeout)
		defer cancel()
	}
	select {
	case <-u.engine.ParentEnded().Done():
	case <-wait.Done():
		return fmt.Errorf("%w: in mode inherit the process before this one must have ended: try again later, or end it", ErrInProgress)
	}
	conv, err := u.engine.AddConversation()
	if err != nil {
		return err
	}
	c, err := spawn.NewProcess(func() { u.killInherited(up) })
	if err != nil {
		_ = conv.Close() // no process has the other end
		return err
	}
	up.inherit, up.child, up.ready = true, c, make(chan struct{})
	u.wg.Go(func() { u.hear(up, conv) }) // ends with Hello, or with the upgrade
	u.wg.Go(func() {                     // ends with the child, its Ready, or the engine's stop
		if err := u.engine.Start(); err != nil {
			c.Ended(err)
			return
		}
		close(up.ready)
	})
	p.Exited, p.Kill, p.Stderr = c.Exited(), c.Kill, c.Stderr.Descriptors
	p.EngineReady = up.ready
	return nil
}

// killInherited kills the child that tableflip has started, whose process ID tableflip
// does not return.
func (u *Upgrader) killInherited(up *upgrade) {
	pid := int(up.peer.Load())
	if pid == 0 {
		pid = inherit.Child()
	}
	if pid <= 0 {
		return // it has ended, or tableflip's own timeout kills it
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // has no effect on one that has ended
	}
}

// converse runs our side of the conversation.
func (u *Upgrader) converse(up *upgrade, p *session.Predecessor) {
	p.Timeouts = session.Timeouts{Ready: u.cfg.ReadyTimeout, Probation: u.cfg.Probation, Hang: u.cfg.hang}
	up.states = u.providers.Begin()
	p.Welcome = wire.Welcome{
		Generation: u.Generation(), PID: int64(os.Getpid()), Build: u.cfg.Version,
		Mode: uint32(u.cfg.Mode), States: uint32(up.states.Len()),
	}
	up.account.report.States = up.states.Len()
	if !up.inherit { // else no socket moves
		p.Process = ownProcess()
		defer fdx.Close(p.Process...) // the successor has a copy
	}
	p.Manifest = func() ([]session.Item, func()) {
		u.suspendMove(up)
		return u.manifest(up)
	}
	p.States = up.states.Write
	p.Pause = func() wire.Paused { return u.pause(up) }
	p.Resume = func() {
		_, _ = u.post(event{kind: lifecycle.Resume}) // a process that stops does not accept
		u.control.Open()
		if err := u.pid.Write(); err != nil {
			u.log.Error("PID file", "error", err)
		}
	}
	p.Entered = func(ph session.Phase) { u.entered(up, ph) }
	res := p.Run(up.arrivals)
	up.account.converse(res)
	if res.Committed {
		u.committed(up, res)
		return
	}
	u.failed(up, res, res.Err)
}

// manifest borrows all that goes to the successor, the control socket included.
func (u *Upgrader) manifest(up *upgrade) ([]session.Item, func()) {
	var items []session.Item
	var held []*sockets.Socket
	all := u.table.All()
	for _, l := range u.table.Leaving() {
		all = append(all, &l.Socket)
	}
	for _, s := range append(all, u.control) {
		fd, ok := s.Hold()
		if !ok {
			continue
		}
		held = append(held, s)
		it := session.Item{Socket: s.Entry, FD: fd, Inherited: up.inherit}
		if s.Stored() != "" {
			it.Socket.Keeper = wire.KeeperStore
		}
		items = append(items, it)
	}
	passed := len(items)
	if len(held) > 0 && held[len(held)-1] == u.control {
		passed--
	}
	up.account.report.Sockets = passed
	return items, func() {
		for _, s := range held {
			_ = s.Release() // an error belongs to the call that has closed it
		}
	}
}

// pause stops accepting and counts what is left to the successor.
func (u *Upgrader) pause(up *upgrade) wire.Paused {
	_, _ = u.post(event{kind: lifecycle.Pause}) // a process that stops has paused
	u.table.Drain()
	queue, halfOpen := u.table.Backlog()
	return up.account.pause(u.table.Accepted(), queue, halfOpen)
}
