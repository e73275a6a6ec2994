package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// controlSocket makes a socket of ln, of which it takes ownership.
func controlSocket(ln net.Listener) (*sockets.Socket, error) {
	h, err := sockets.HandleOf(ln, nil)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s, err := sockets.New(sockets.Key{Kind: wire.KindControl, Network: "unix", Address: ln.Addr().String()}, h, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return s, nil
}

// introduceControl has the kernel name this process to those that dial the control socket,
// where another process has bound that. A process that has dropped the user of that one
// stays unnamed: the next version starts as that user, and would not rely on this one.
func (u *Upgrader) introduceControl() error {
	if u.control == nil || u.successor == nil && (u.engine == nil || !u.engine.HasParent()) {
		return nil
	}
	if _, err := os.Lstat(u.control.Entry.Bound); errors.Is(err, os.ErrPermission) {
		return nil // the folder is that user's, with mode 0700
	}
	return u.control.Introduce()
}

// closeControl closes the control socket. last says that no other process has it: its files
// are removed first.
func (u *Upgrader) closeControl(last bool) (err error) {
	if u.control == nil {
		return nil
	}
	u.control.Shut()
	if e := &u.control.Entry; last && e.PathIno != 0 {
		made := u.cfg.Name != "" && e.Bound == operate.Path(u.cfg.Name) // and not by the user
		err = operate.Clean(e.Bound, made, func() error { return sockets.Unlink(e) })
	}
	_, derr := u.control.Drop()
	return errors.Join(err, derr)
}

// socketsPerPart keeps a part of the status within wire.MaxBody.
const socketsPerPart = 512

// controlService is the Upgrader for the server at its control socket.
type controlService struct{ u *Upgrader }

// serveControl answers at the control socket until that is shut. Its gate is open
// only in the process that serves.
func (u *Upgrader) serveControl() {
	if u.control == nil {
		return
	}
	server := &operate.Server{
		Service: controlService{u}, Name: u.cfg.Name, Allow: u.allow, Subscribers: &u.subscribers, Log: u.log,
		Timeout: u.cfg.hang, Stop: u.closing,
	}
	server.Serve(func() (net.Conn, error) { return u.control.Listener.Accept(nil) })
}

// allow is Config.Allow, if that is set.
func (u *Upgrader) allow(c fdx.Cred) bool { return u.cfg.Allow != nil && u.cfg.Allow(Peer(c)) }

// checkPeer returns an error unless the peer may talk to this process.
func (u *Upgrader) checkPeer(c fdx.Cred, err error) error { return operate.CheckPeer(c, err, u.allow) }

// checkInherited is checkPeer for the other end of an inherited conversation: the process
// that has started this one made it, so that equal numbers are enough.
func (u *Upgrader) checkInherited(c fdx.Cred, err error) error {
	if err == nil && c.UID == os.Geteuid() {
		return nil
	}
	return u.checkPeer(c, err)
}

// Status returns the status, a part of the sockets at a time.
func (s controlService) Status() []any {
	s.u.history.await(s.u.closing)
	part := s.u.Status()
	var parts []any
	for {
		left := part.Sockets
		n := min(len(left), socketsPerPart)
		part.Sockets = left[:n]
		parts = append(parts, part)
		if n == len(left) {
			return parts
		}
		part = Status{Sockets: left[n:]}
	}
}

// Upgrade starts a successor and sees the upgrade through.
func (s controlService) Upgrade(ctx context.Context, asked operate.Upgrade) (any, error) {
	if (asked.Executable != "" || asked.Env != nil) && s.u.cfg.Mode == Inherit {
		return nil, fmt.Errorf("%w: in mode inherit an upgrade starts %s in the environment of this process, and nothing else: install the new version at that path", ErrUnsupported, s.u.cfg.program.Path)
	}
	report, err := s.u.upgradeTo(ctx, asked)
	var failed *UpgradeError
	if errors.As(err, &failed) {
		return nil, &operate.FailedUpgrade{PID: failed.PID, Outcome: string(failed.Outcome), Stderr: failed.Stderr, Err: failed.Err}
	}
	return report, err
}

// Rollback takes the sockets back from a successor that is not committed.
func (s controlService) Rollback(ctx context.Context, reason string) (any, error) {
	up, err := s.u.rollback(reason)
	if errors.Is(err, ErrNoUpgrade) {
		s.u.history.await(s.u.closing)
		if all := s.u.history.copy().Reports; len(all) > 0 && all[len(all)-1].Outcome == OutcomeCommitted {
			return nil, fmt.Errorf("%w: the last one, to generation %d, is committed: to go back, install the version before it and upgrade", err, all[len(all)-1].Generation)
		}
	}
	if err != nil {
		return nil, err
	}
	select {
	case <-up.over.Done():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if up.err == nil {
		return nil, fmt.Errorf("%w: pid %d has the sockets", ErrCommitted, up.account.report.Successor.PID)
	}
	return up.account.copy(), nil
}

// Stop begins a graceful end without a successor.
func (s controlService) Stop(reason string) { s.u.beginStop(reason) }

// Linger returns the counts of the open connections.
func (s controlService) Linger() operate.Linger {
	c := s.u.conns.Counts()
	return operate.Linger{Open: c.Open, Moved: c.Moved, Cut: c.Cut, Remaining: s.u.remaining()}
}

// Join begins an upgrade with a successor that has dialled, or continues the one that
// waits for it.
func (s controlService) Join(a session.Arrival, peer fdx.Cred) error {
	u := s.u
	if a.Hello.Via == wire.ViaInherit {
		up := u.underWay()
		if up == nil || !up.inherit {
			return ErrNoUpgrade
		}
		// The queue of an inherited control socket can hold connections that the
		// predecessor did not accept before its end: those of its own children, and
		// the one by which this process has tried to join it.
		if !procs.Descends(peer.PID) {
			return fmt.Errorf("%w: pid %d is no child of this process", ErrPeerRefused, peer.PID)
		}
		a.Ended = u.identify(up, peer.PID)
		up.arrive(a)
		return nil
	}
	if peer.PID != 0 { // it is in this PID namespace, or below
		if err := u.outlived(); err != nil {
			return err
		}
	}
	mode := u.cfg.Mode
	if mode != Drain {
		mode = Takeover
	}
	up, err := u.begin(mode)
	if err != nil {
		return err
	}
	up.account.report.Successor.PID = peer.PID
	a.Ended = u.identify(up, peer.PID)
	up.arrivals <- a
	u.log.Info("upgrade started by the successor", "pid", peer.PID)
	u.emit(Event{Kind: EventUpgradeStarted, Report: up.account.copy()})
	u.systemd.TakeoverStarted()
	u.wg.Go(func() { // ends with the upgrade
		u.lookAtControl()
		u.converse(up, &session.Predecessor{Cancel: up.cancel})
	})
	return nil
}
