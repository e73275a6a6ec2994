package handoff

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/conns"
	"github.com/seed-11c92bf9/baton/handoff/internal/flows"
	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/pidfile"
	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/signals"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/stateblob"
	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// An Upgrader holds the sockets of a service, takes them over from a
// predecessor and hands them to a successor. Its methods may be called from
// several goroutines.
type Upgrader struct {
	cfg       *config
	log       hclog.Logger
	started   time.Time
	owner     *owner
	table     *sockets.Table
	providers stateblob.Providers // of state, for a successor
	received  stateblob.Received  // state of a predecessor
	conns     *conns.Set
	flows     flows.Sets
	inboxes   inboxes
	before    preparations

	engine    *inherit.Engine                           // tableflip, in mode Inherit or started by it
	control   *sockets.Socket                           // the control socket; nil where it has no path
	keeper    *keeper                                   // of its path
	successor *session.Successor                        // our side as a successor; nil if we are the first
	welcome   wire.Welcome                              // the predecessor's, with successor
	via       wire.Via                                  // how this process has reached it, likewise
	watcher   string                                    // what would end with this process, and end a successor by that
	mover     *rebind.Mover                             // to sockets of this process's own
	release   func(kind wire.SocketKind, holders []int) // for message Released, with successor
	failures  *conns.Set                                // has a hold for each process of a successor that has failed
	redirect  *spawn.Redirect                           // of our standard error, until commit; nil if we were not started by an upgrade
	signals   *signals.Relay
	pid       *pidfile.File
	history   *history
	systemd   *systemd.Manager

	subscribers operate.Subscribers // to the events
	hook        *hook               // Config.OnEvent; nil if there is none

	predecessors predecessors // that linger

	wg      sync.WaitGroup // every goroutine but the ones of Shutdown itself
	done    chan struct{}  // closed when this process is to end
	expired chan struct{}  // closed when the linger is over
	closing chan struct{}  // closed when Shutdown releases everything
	hurried chan struct{}  // closed by a second stop signal
	hurry   sync.Once      // closes hurried
	passed  chan struct{}  // closed when the successor has the conversations with older predecessors

	shutDone chan struct{} // closed when Shutdown is over
	shutErr  error         // valid then
	closeErr error         // likewise: shutErr, but for connections that Close has cut
}

// New joins a running predecessor, or makes this process the first of its line. It
// returns when it has received and checked the sockets of the predecessor, which
// serves until Ready.
//
// A process joins if an upgrade has started it, in any mode, or if its mode is
// Takeover or Drain and another process serves its control socket. The errors of
// joining match [ErrInProgress], [ErrNotReady] or [ErrInProbation] if the predecessor
// is busy; [ErrPeerRefused] if one of the two processes does not allow the user of the
// other; [ErrVersion]; [ErrTransfer] if a descriptor is missing, or is not the socket that
// the predecessor described; [ErrTimeout]; [ErrUnsupported] if the system can't do what
// the mode needs.
//
// If the predecessor dies while New runs, a process that no upgrade has started
// becomes the first of its line; a successor that the predecessor has started fails
// with [ErrPredecessorDied].
//
// A stop signal during New makes it return [ErrAborted]; the signal is then raised
// again with its original disposition, which ends a program without a handler.
//
// A nil config means all defaults.
func New(c *Config) (*Upgrader, error) {
	cfg, err := newConfig(c)
	if err != nil {
		return nil, err
	}
	if err := supported(); err != nil {
		return nil, err
	}
	u := &Upgrader{
		cfg:      cfg,
		log:      cfg.Logger,
		table:    sockets.NewTable(),
		conns:    conns.NewSet(),
		inboxes:  inboxes{all: make(map[string]chan MovedConn)},
		before:   preparations{rushed: make(chan struct{}), prepared: make(chan struct{})},
		failures: conns.NewSet(),
		pid:      pidfile.At(cfg.pidFile),
		signals:  signals.New(cfg.StopSignals, cfg.UpgradeSignals),
		history:  newHistory(),
		keeper:   newKeeper(),
		started:  time.Now(),
		done:     make(chan struct{}),
		expired:  make(chan struct{}),
		closing:  make(chan struct{}),
		hurried:  make(chan struct{}),
		passed:   make(chan struct{}),
		shutDone: make(chan struct{}),
	}
	if cfg.OnEvent != nil {
		u.hook = newHook(cfg.OnEvent, u.subscribers.Subscribe())
	}
	if !spawned() && (!cfg.Supervised || os.Getpid() == 1) {
		u.watcher = spawn.Watcher()
	}
	u.mover = rebind.New(u.table, u.log, u.moved)
	u.systemd, err = systemd.New(systemd.Config{
		Disabled: cfg.NoSystemd, NoStore: cfg.NoStore, Spawned: spawned(), Drain: cfg.Mode == Drain, Inherit: cfg.Mode == Inherit,
		Version: cfg.Version, Table: u.table, Logger: cfg.Logger,
		Updated: func(err error) { u.emit(Event{Kind: EventStored, Err: err}) },
	})
	if err != nil {
		return nil, err
	}
	u.owner = newOwner()
	if err := u.join(); err != nil {
		u.discard(err)
		return nil, err
	}
	u.start()
	return u, nil
}

// discard releases what a failed New has taken.
func (u *Upgrader) discard(err error) {
	if u.successor != nil {
		u.successor.Refuse(err.Error())
	}
	_ = errors.Join(u.table.Close(), u.flows.Close()) // nothing of it was served
	u.systemd.Close()
	_ = u.mover.Close() // likewise
	u.received.Close()
	_ = u.closeControl(u.successor == nil && (u.engine == nil || !u.engine.HasParent())) // last where it was bound here
	if u.engine != nil {
		u.engine.Stop(false) // the paths are the parent's
	}
	u.redirect.Close()
	u.signals.GiveBack()
	u.owner.stop()
}

// start starts the goroutines that run until Shutdown.
func (u *Upgrader) start() {
	u.signals.Begin()
	u.signals.Wait()
	if u.hook != nil {
		go u.hook.run() // ends with EventStopped; Shutdown waits for it
	}
	u.wg.Go(u.handleSignals) // ends with closing
	u.wg.Go(u.serveControl)
	u.wg.Go(u.keepControl) // ends with done
	if u.successor != nil {
		u.wg.Go(u.succeed) // ends with the conversation
	} else {
		u.history.settle()
		if u.cfg.ReadyTimeout > 0 {
			u.wg.Go(u.remind) // ends with done
		}
	}
}

// Ready says that the process can serve: Accept returns connections from now on. The
// predecessor stops accepting, and commits at the end of the probation. Ready does not
// wait for that: Done, Err and OnEvent show how the upgrade ends.
//
// The program opens its sockets before it calls Ready. If it has not opened all of the
// predecessor's, the predecessor leaves the others at the commit: it serves the
// connections in their queues and those whose handshake is under way, then closes them,
// and the report names them. If the program has opened none, it is no version of the
// service: Ready returns [ErrMismatch], and the predecessor serves on.
//
// A second call has no effect. Ready returns an error if the upgrade has already failed.
// If Ready can't write the PID file, it aborts the upgrade and returns an error.
func (u *Upgrader) Ready() error {
	life := u.life()
	switch {
	case life.Done():
		return errors.Join(ErrClosed, u.Err())
	case life.Phase != lifecycle.Starting:
		return nil
	}
	if u.successor != nil {
		if err := u.leaveOut(); err != nil {
			_ = u.Abort(err) // or the predecessor has ended it already
			return err
		}
	}
	if err := u.mover.Join(); err != nil {
		if u.successor != nil {
			_ = u.Abort(err) // or the predecessor has ended it already
		}
		return fmt.Errorf("handoff: %w", err)
	}
	if u.successor != nil {
		err := u.pid.Stage()
		if err == nil {
			if err = u.flows.Serve(); err != nil {
				err = fmt.Errorf("handoff: flows %w", err)
			}
		}
		if err != nil {
			_ = u.Abort(err) // or the predecessor has ended it already
			return err
		}
		if !u.successor.Ready() {
			u.leaveFlows()
			<-u.done
			return errors.Join(ErrClosed, u.Err())
		}
		return nil
	}
	if err := u.pid.Write(); err != nil {
		return err
	}
	opened, err := u.open(lifecycle.Ready)
	switch {
	case err != nil: // a stop came before
		return errors.Join(ErrClosed, u.Err(), u.pid.Remove())
	case !opened: // another call has
		return nil
	}
	err = u.own()
	u.resetSteering()
	return err
}

// open lets Accept return connections, because of e. It reports whether it has; the
// error says that the process ends.
func (u *Upgrader) open(e lifecycle.Event) (bool, error) {
	acts, err := u.post(event{kind: e})
	if !acts.has(lifecycle.OpenGate) {
		return false, err
	}
	u.log.Info("ready", "generation", u.Generation())
	u.emit(Event{Kind: EventReady})
	return true, nil
}

// own does what makes this process the one that serves.
func (u *Upgrader) own() error {
	var errs []error
	if u.engine != nil {
		errs = append(errs, u.engine.Ready())
	}
	errs = append(errs, u.closeLeft(u.table.Own()), u.flows.CloseLeft())
	errs = append(errs, u.table.Introduce(), u.ownControl())
	u.received.Close()
	u.redirect.Restore()
	err := errors.Join(errs...)
	u.log.Info("this process owns the sockets", "generation", u.Generation(), "pid", os.Getpid())
	u.emit(Event{Kind: EventOwner})
	u.systemd.Owner(u.Generation())
	if u.successor == nil {
		u.systemd.Introduce(u.Generation()) // a parent on plain tableflip does not
	}
	return err
}

// Generation returns the generation of this process: 1 for the first of its
// line, and one more with each commit.
func (u *Upgrader) Generation() (generation uint64) {
	u.owner.ask(func(s *state) { generation = s.generation })
	return generation
}

// Done returns a channel that is closed when this process should end: after the commit
// of a successor, after the failure of the upgrade that started this process, after a
// stop signal, or after a call of Shutdown. From then on Accept returns errors that match
// [net.ErrClosed]. The program finishes its work and calls Shutdown.
func (u *Upgrader) Done() <-chan struct{} { return u.done }

// Err returns why Done was closed: nil after a commit or a stop, and an error that
// matches [ErrRolledBack], [ErrAborted] or [ErrTimeout] after the failure of the
// upgrade that started this process. Before Done is closed it returns nil.
func (u *Upgrader) Err() (err error) {
	u.owner.ask(func(s *state) { err = s.err })
	return err
}

// Abort ends the upgrade that is under way before its commit, with err as the reason; nil
// means that there is none. The successor calls it to refuse the upgrade: Abort returns
// when Done is closed, and in the predecessor Upgrade returns an error with the text of
// err. The predecessor calls it to take the sockets back: Abort does not wait for that,
// and Upgrade returns when the upgrade has ended.
//
// Abort returns [ErrCommitted] in a successor that is committed, and [ErrNoUpgrade] if no
// upgrade is under way.
func (u *Upgrader) Abort(err error) error {
	text := "no reason given"
	if err != nil {
		text = err.Error()
	}
	if u.successor != nil && u.successor.Abort(text) {
		<-u.done
		return nil
	}
	_, none := u.rollback(text)
	if none != nil && u.successor != nil {
		return ErrCommitted
	}
	return none
}

// Successor returns the process that has replaced this one, and true. It returns false
// while this process serves, and after a stop. At its end a program with files of its own
// leaves them to its successor. Without a successor it removes them, unless Err returns an
// error: then the upgrade that started this process has failed, and the predecessor uses
// the files.
func (u *Upgrader) Successor() (Process, bool) {
	if r := u.replacement(); r != nil {
		return r.Successor, true
	}
	return Process{}, false
}

// replacement returns the account of the upgrade that replaced this process, or nil.
func (u *Upgrader) replacement() (r *Report) {
	u.owner.ask(func(s *state) { r = s.replaced })
	return r
}

// emit publishes an event.
func (u *Upgrader) emit(e Event) {
	u.owner.ask(func(s *state) { u.publish(s, e) })
}

// publish is emit in the owner's goroutine: events come in the order of what they say.
func (u *Upgrader) publish(s *state, e Event) {
	e.Time, e.PID, e.Generation = time.Now(), os.Getpid(), s.generation
	if e.Err != nil {
		e.Reason = e.Err.Error()
	}
	if e.Report != nil {
		s.event = &e
	}
	u.subscribers.Publish(operate.Event{Value: e, Starts: e.Kind == EventUpgradeStarted, Last: e.Kind == EventStopped})
}
