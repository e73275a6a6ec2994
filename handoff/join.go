package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/flows"
	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// join finds the predecessor, by the environment or else by the control socket, and
// receives what it passes on. It makes a control socket if there is no predecessor.
func (u *Upgrader) join() error {
	conv, err := spawn.Inherited()
	if err != nil {
		return err
	}
	first := conv == nil && !inherit.Spawned()
	if first { // before tableflip, which a process can start once
		if err := u.joinControl(retries); err != nil {
			return err
		}
	}
	if u.cfg.Mode == Inherit || inherit.Spawned() {
		if u.engine, err = inherit.New(u.cfg.upgradeTimeout(), u.cfg.program.Explain); err != nil {
			if conv != nil {
				_ = conv.Close() // the predecessor sees the end
			}
			return err
		}
	}
	switch {
	case conv != nil:
		err = u.joinPeer(conv, wire.ViaSpawn)
	case !first:
		err = u.joinParent()
	}
	if err != nil {
		return err
	}
	if u.control == nil { // it was not passed on
		if _, err := u.openControl(false); err != nil {
			return err
		}
	}
	u.owner.ask(func(s *state) { s.generation = max(s.generation, 1) })
	if u.engine != nil && u.cfg.Mode == Inherit && u.control != nil {
		return u.engine.Add(&u.control.Entry, u.control.Handle())
	}
	return nil
}

// spawned reports whether a predecessor has started this process, until join has taken
// that out of the environment.
func spawned() bool { return spawn.Spawned() || inherit.Spawned() }

// A process that ends refuses successors, which try again.
const (
	retries    = 20
	retryDelay = 50 * time.Millisecond
)

// joinControl joins the process that serves the control socket, or makes that ours.
func (u *Upgrader) joinControl(tries int) error {
	c, err := u.openControl(u.cfg.Mode != Inherit)
	if c == nil {
		return err
	}
	err = u.joinPeer(c, wire.ViaDial)
	if errors.Is(err, ErrClosed) && tries > 0 {
		// The process ends. Its successor serves the socket next, or this process.
		time.Sleep(retryDelay)
		return u.joinControl(tries - 1)
	}
	if !errors.Is(err, ErrPredecessorDied) || tries == 0 {
		return err
	}
	// No process has its sockets any more: we can bind new ones.
	u.log.Warn("the predecessor died while it passed on its sockets: starting without a predecessor", "error", err)
	return u.joinControl(tries - 1)
}

// openControl makes a control socket, if it has a path. Where another process serves it,
// it returns a connection to that process, or an error if this process may not join it.
func (u *Upgrader) openControl(mayJoin bool) (*net.UnixConn, error) {
	path, err := operate.Locate(u.cfg.Name, u.cfg.ControlSocket)
	if err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	if path == "" {
		return nil, nil // only its own successors could find it, and they inherit the conversation
	}
	open := operate.Open
	if mayJoin {
		open = operate.OpenSole // or this process would be a second service, which Drain binds sockets for
	}
	c, ln, err := open(path, u.cfg.hang, u.log)
	if err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	switch {
	case c != nil && mayJoin:
		return c, nil
	case c != nil:
		_ = c.Close() // nothing was sent
		return nil, fmt.Errorf("handoff: control socket %s: %w: another process serves it: set another Name, or replace that process in mode Takeover or Drain", path, syscall.EADDRINUSE)
	}
	if u.control, err = controlSocket(ln); err != nil {
		return nil, err
	}
	if u.successor == nil {
		u.control.Open()
	}
	return nil, nil
}

// joinPeer is joinOver with a peer that is not checked yet.
func (u *Upgrader) joinPeer(c *net.UnixConn, via wire.Via) error {
	check := u.checkPeer
	if via == wire.ViaSpawn {
		check = u.checkInherited
	}
	if err := check(fdx.PeerCred(c)); err != nil {
		_ = c.Close() // nothing was sent
		return err
	}
	return u.joinOver(c, via)
}

// joinOver joins the predecessor at the other end of c, which it takes.
func (u *Upgrader) joinOver(c *net.UnixConn, via wire.Via) error {
	conn := fdpass.New(c)
	j := session.Joiner{
		Hello: wire.Hello{
			MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion,
			PID: int64(os.Getpid()), Build: u.cfg.Version, Via: via, Mode: u.cfg.Mode.number(),
		},
		Check:  session.Verify,
		Expect: fdx.RaiseNoFile,
		Meanwhile: func() (<-chan os.Signal, error) {
			u.signals.Begin()
			if via == wire.ViaInherit && u.control == nil {
				return u.signals.Stops, u.inheritControl()
			}
			return u.signals.Stops, nil
		},
		Welcomed: func() {
			if via == wire.ViaSpawn {
				cred, _ := conn.Peer() // 0 where it is in another PID namespace
				spawn.JoinGroup(cred.PID)
			}
		},
		Timeout: u.cfg.hang,
	}
	if u.cfg.ReadyTimeout > 0 {
		j.StateTimeout = u.cfg.ReadyTimeout
	}
	got, s, err := j.Join(session.NewWireLink(conn, u.cfg.hang))
	if err != nil {
		var stopped *session.Stopped
		if errors.As(err, &stopped) {
			u.signals.PutBack(stopped.Signal)
		}
		return err
	}
	u.successor, u.welcome, u.via = s, got.Welcome, via
	if name := got.Welcome.Name; name != "" && u.cfg.Name != "" && name != u.cfg.Name {
		got.Close()
		return fmt.Errorf("%w: the predecessor, pid %d, has the Name %q, and this process %q: give both the same Name, or stop the predecessor first", ErrMismatch, got.Welcome.PID, name, u.cfg.Name)
	}
	generation := got.Welcome.Generation + 1
	u.owner.ask(func(s *state) { s.generation = generation })
	if len(got.Stderr) == 3 {
		fds := got.Stderr
		got.Stderr = nil
		if u.redirect, err = spawn.NewRedirect(fds); err != nil {
			u.log.Warn("can't write to the predecessor's standard error", "error", err)
		}
	}
	if err := u.takeControl(got); err != nil {
		got.Close()
		return err
	}
	u.takeLanes(got)
	u.received.Add(got.States)
	for i := range got.Sockets {
		u.systemd.Received(&got.Sockets[i].Socket)
	}
	u.table.Arrive(u.arrived(got.Sockets))
	kinds := []wire.SocketKind{wire.KindListener, wire.KindPacket}
	if via == wire.ViaInherit {
		kinds = nil // no socket moves
	}
	predecessor := u.mover.Hold(got.Process, kinds...)
	s.Ended = predecessor.Ended()
	u.release = func(kind wire.SocketKind, holders []int) {
		for _, pidfd := range holders {
			u.mover.Hold([]int{pidfd}, kind)
		}
		predecessor.Release(kind)
	}
	s.Open = func() {
		if err := u.table.ServeLeft(); err != nil {
			u.log.Error("the predecessor's sockets that the program has not opened are not emptied", "error", err)
		}
		_, _ = u.open(lifecycle.Start) // a process that ends has told its predecessor
		// The predecessor stops when calls are inside of Accept here: no gap.
		u.table.Entered(enterTimeout)
	}
	s.Shut = func() {
		u.leaveFlows()
		u.flows.Offer()
		_, _ = u.post(event{kind: lifecycle.Leave}) // nothing refuses it
		// What this process answers to the predecessor says that it has no duplicates.
		// Datagrams that were read can be answered until Shutdown.
		if err := u.table.DropKind(wire.KindListener); err != nil {
			u.log.Warn("a listener did not close after the rollback", "error", err)
		}
		_, _ = u.control.Drop() // the predecessor has it
	}
	var warnings []string
	s.Own = func() {
		_, _ = u.post(event{kind: lifecycle.Own}) // a process that has quit owns nothing
		// Before the predecessor leaves the sockets that overlap them.
		for _, err := range u.mover.JoinLate() {
			u.log.Error("a new socket, beside those of the predecessor, does not listen", "error", err)
			warnings = append(warnings, "the successor does not listen on "+err.Error())
		}
		// The PID file names this process before the event says so.
		if err := errors.Join(u.pid.Write(), u.own()); err != nil {
			u.log.Error("the commit is incomplete", "error", err)
			warnings = append(warnings, "the commit is incomplete: "+err.Error())
		}
		u.mover.Resume()
		if err := u.flows.Own(); err != nil {
			u.log.Error("this process does not get new flows", "error", err)
			warnings = append(warnings, "the successor does not get new flows: "+err.Error())
		}
	}
	s.Gone = u.redirect.Restore
	s.Healthy = u.cfg.Healthy
	s.Accepted = u.table.Accepted
	s.Conns = u.inboxes.names
	s.Unready = u.unready
	s.Announce = u.announce
	s.Confirm = func(m *wire.Committed) { m.Warnings = warnings[:min(len(warnings), wire.MaxEntries)] }
	_, _ = u.post(event{kind: lifecycle.Join}) // nothing refuses it
	u.log.Info("joined the predecessor", "pid", got.Welcome.PID, "generation", generation, "sockets", len(got.Sockets))
	u.emit(Event{Kind: EventJoined})
	return nil
}

// arrived returns what the table has to know of the sockets that have come.
func (u *Upgrader) arrived(items []session.Item) []sockets.Arrived {
	all := make([]sockets.Arrived, len(items))
	for i, it := range items {
		all[i] = sockets.Arrived{Entry: it.Socket, Source: sockets.Descriptor(it.FD)}
		if it.Inherited {
			all[i].Source = &inherited{engine: u.engine}
		}
	}
	return all
}

// enterTimeout bounds how long a ready successor waits for its goroutines to call
// Accept before the predecessor stops.
const enterTimeout = 50 * time.Millisecond

// takeControl takes the control socket out of what was passed on.
func (u *Upgrader) takeControl(got *session.Received) error {
	for i, it := range got.Sockets {
		if it.Socket.Kind != wire.KindControl {
			continue
		}
		got.Sockets = append(got.Sockets[:i], got.Sockets[i+1:]...)
		if it.Inherited {
			switch {
			case u.control != nil:
				u.control.Entry = it.Socket // with the identity of its path
			case !abstract(it.Socket.Bound):
				return fmt.Errorf("%w: the control socket was not inherited", ErrTransfer)
			}
			return nil
		}
		if abstract(it.Socket.Bound) {
			return fdx.Close(it.FD)
		}
		ln, err := fdx.Listener(it.FD, it.Socket.Address)
		if err != nil {
			return fmt.Errorf("%w: control socket: %w", ErrTransfer, err)
		}
		if u.control, err = controlSocket(ln); err != nil {
			return err
		}
		u.control.Entry = it.Socket
		return nil
	}
	return nil
}

// takeLanes takes the lanes of flows out of what was passed on.
func (u *Upgrader) takeLanes(got *session.Received) {
	var lanes []flows.Item
	got.Sockets = slices.DeleteFunc(got.Sockets, func(it session.Item) bool {
		lane := it.Socket.Kind == wire.KindLane
		if lane {
			lanes = append(lanes, flows.Item{Entry: it.Socket, FD: it.FD})
		}
		return lane
	})
	u.flows.Arrive(lanes)
}

// unready says what the program has asked for, unless it has called Ready.
func (u *Upgrader) unready() string {
	if u.life().Phase != lifecycle.Starting {
		return ""
	}
	asked, all := u.table.Asked()
	return fmt.Sprintf("it had asked for %d of %d sockets", asked, all)
}

// abstract reports whether the address of a control socket is an abstract name, which
// any process can reach. A predecessor of an older Baton has one where the service has
// no path for it.
func abstract(address string) bool { return strings.HasPrefix(address, "@") }

// succeed sees our side as a successor through to its end.
func (u *Upgrader) succeed() {
	t := u.successor.Run()
	if !t.Owner {
		u.redirect.Restore()
		if acts, _ := u.post(event{kind: lifecycle.Quit, err: t.Err}); acts.has(lifecycle.CloseDone) {
			u.log.Error("upgrade failed: this process ends", "error", t.Err)
			u.emit(Event{Kind: EventQuit, Err: t.Err})
			u.wg.Go(func() { u.watchLinger(nil) }) // ends with closing
		}
		return
	}
	defer u.history.settle() // only the predecessor sends an account
	if t.Following != nil {
		t.Following.Released = u.release
		u.follow(t.Following)
	}
	u.systemd.Introduce(u.Generation()) // unless the predecessor has, before it died
}
