package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/stateblob"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// An upgrade is one that this process, as the predecessor, goes through.
type upgrade struct {
	arrivals chan session.Arrival // capacity 1: the successor, once it has said Hello
	cancel   chan *session.Error  // capacity 1
	wanted   context.Context      // ends with the first reason to give up, which is its cause
	unwant   context.CancelCauseFunc
	over     context.Context     // ends with the commit, or without one
	end      context.CancelFunc  // of over
	err      error               // valid once it is over
	inherit  bool                // tableflip starts the successor
	holder   *rebind.Holder      // the successor, once it has said Hello; nil in mode Inherit
	states   *stateblob.Transfer // nil until the successor is there

	asked operate.Upgrade // of a request: what differs from the configuration

	account *account
	child   *spawn.Process  // nil for a successor that this process has not started
	ready   chan struct{}   // closed when tableflip says that child is ready; in mode Inherit, else nil
	speaker atomic.Int64    // the pid of the process that has sent Hello, as the kernel names it; 0 if it is not known
	watched context.Context // ends when the end of that process does not matter any more
	unwatch context.CancelFunc
}

// giveUp has the upgrade end without a commit, if it still can.
func (up *upgrade) giveUp(e *session.Error) {
	select {
	case up.cancel <- e:
		up.unwant(e)
	default: // the first reason counts
	}
}

// givenUp returns the reason for which an upgrade ended that waited for the start of
// its successor, or nil if only the wait has ended.
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
		inherit:  mode == Inherit, // before others see it
	}
	up.wanted, up.unwant = context.WithCancelCause(context.Background())
	up.over, up.end = context.WithCancel(context.Background())
	up.watched, up.unwatch = context.WithCancel(context.Background())
	accepted := u.table.Accepted()
	err := u.flows.Room()
	if err != nil {
		return nil, err
	}
	u.owner.ask(func(s *state) {
		if _, err = u.step(s, event{kind: lifecycle.Begin}); err == nil {
			s.upgrade, s.event = up, nil // that was of the one before
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

// Upgrade starts a successor and returns when the upgrade has ended. After a commit
// it returns nil: Done is closed, and this process lingers. Otherwise this process
// serves as before, no connection is lost, and Upgrade returns an *[UpgradeError] that
// matches [ErrStart], [ErrSuccessorDied], [ErrTimeout], [ErrAborted], [ErrRolledBack],
// [ErrVersion], [ErrTransfer] or [ErrProtocol]. [ErrInProgress], [ErrNotReady],
// [ErrInProbation] and [ErrClosed] say that no upgrade began. [ErrUnsupported] says
// that none can: the container, and the successor with it, would end when this process
// ends (see Config.Supervised).
//
// When ctx ends before the commit, the upgrade is rolled back.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	_, err := u.upgradeTo(ctx, operate.Upgrade{})
	return err
}

// upgradeTo is Upgrade to the program and environment that a request asks for.
func (u *Upgrader) upgradeTo(ctx context.Context, asked operate.Upgrade) (Report, error) {
	up, err := u.initiate()
	if err != nil {
		return Report{}, err
	}
	up.asked = asked
	u.wg.Go(func() { u.run(ctx, up) }) // ends with the upgrade, which ctx ends
	<-up.over.Done()
	return up.account.report, up.err
}

// initiate is begin for an upgrade whose successor this process starts.
func (u *Upgrader) initiate() (*upgrade, error) {
	if err := u.outlived(); err != nil {
		return nil, err
	}
	return u.begin(u.cfg.Mode)
}

// outlived returns why no successor in this container can outlive this process, or nil.
func (u *Upgrader) outlived() error {
	if u.watcher == "" {
		return nil
	}
	return fmt.Errorf("%w: %s, so the successor would end with this process: %s", ErrUnsupported, u.watcher, outliveAdvice)
}

const outliveAdvice = "have `baton run` start the program, as entrypoint of the container, or start the successor in a container of its own, in mode Takeover, on the same control socket; if what has started this process stays, set Config.Supervised"

// rollback has the upgrade that is under way end without a commit. It returns that.
func (u *Upgrader) rollback(reason string) (*upgrade, error) {
	up := u.underWay()
	if up == nil {
		return nil, ErrNoUpgrade
	}
	up.giveUp(&session.Error{Reason: failure.RolledBack, Text: reason})
	return up, nil
}

// run starts the successor and goes through the upgrade with it.
func (u *Upgrader) run(ctx context.Context, up *upgrade) {
	u.log.Info("upgrade started", "mode", u.cfg.Mode)
	u.emit(Event{Kind: EventUpgradeStarted, Report: up.account.copy()})
	p := &session.Predecessor{Cancel: up.cancel}
	cancel := func() { up.giveUp(&session.Error{Reason: failure.Canceled, Err: context.Cause(ctx)}) }
	if ctx.Err() != nil {
		cancel() // at once: AfterFunc takes a goroutine
	}
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	u.systemd.UpgradeStarted(up.wanted, u.Generation(), u.cfg.upgradeTimeout())
	start := u.startSpawn
	if u.cfg.Mode == Inherit {
		start = u.startInherit
	}
	err := up.givenUp(ErrInProgress)
	if err == nil {
		u.lookAtControl()
		err = start(up, p)
	}
	if errors.Is(err, ErrInProgress) { // a wait has ended
		err = cmp.Or(up.givenUp(err), err)
	}
	if err != nil {
		u.failed(up, session.Result{}, err)
		return
	}
	u.converse(up, p)
}

// converse runs our side of the conversation.
func (u *Upgrader) converse(up *upgrade, p *session.Predecessor) {
	p.Timeouts = session.Timeouts{Ready: u.cfg.ReadyTimeout, Probation: u.cfg.Probation, Hang: u.cfg.hang}
	up.states = u.providers.Begin()
	p.Welcome = wire.Welcome{
		Generation: u.Generation(), PID: int64(os.Getpid()), Build: u.cfg.Version,
		Name: u.cfg.Name, Mode: u.cfg.Mode.number(), States: uint32(up.states.Len()),
	}
	up.account.report.States = up.states.Len()
	if self, err := procs.OpenPidfd(os.Getpid()); err == nil { // else the kernel has none
		defer self.Close() // the successor has a copy
		if fd, err := fdx.Number(self); err == nil {
			p.Process = []int{fd}
		}
	}
	p.Manifest = func() ([]session.Item, func()) {
		u.suspendMove(up)
		return u.manifest(up)
	}
	p.States = up.states.Write
	p.Announced = func(m *wire.Ready) {
		u.table.Keep(m.Left)
		for _, text := range m.Warnings {
			up.account.warn(text)
		}
	}
	p.Pause = func() wire.Paused { return u.pause(up) }
	p.Resume = func() {
		u.takeFlows()
		_, _ = u.post(event{kind: lifecycle.Resume}) // a process that stops does not accept
		u.control.Open()
		if err := u.pid.Write(); err != nil {
			u.log.Error("the PID file does not name this process, which serves again", "error", err)
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
	lanes := u.passFlows()
	for _, l := range lanes {
		items = append(items, session.Item{Socket: l.Entry, FD: l.FD})
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
		for _, l := range lanes {
			_ = fdx.Close(l.FD) // a duplicate
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
