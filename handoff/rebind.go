package handoff

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// What mode Drain adds to Takeover: see package rebind.

// rebinds reports whether a socket for k is to be one of this process's own.
func (u *Upgrader) rebinds(k sockets.Key) bool {
	return u.cfg.Mode == Drain && sockets.Inet(&wire.Socket{Kind: k.Kind, Network: k.Network})
}

// rebound makes a socket for k that moves from h, which came with origin, to one of
// this process's own, or without h is one from the start. It takes ownership of h.
func (u *Upgrader) rebound(ctx context.Context, k sockets.Key, h sockets.Handle, origin *sockets.Origin) (*sockets.Socket, error) {
	if h == nil {
		// A predecessor may have fewer sockets on the address: until they move, two of
		// this process share one.
		var err error
		if h, err = u.shared(k); err != nil {
			return nil, err
		}
		origin = &sockets.Origin{} // net has forgotten the keep-alive of an own one, too
	}
	o, err := rebind.Reserve(ctx, k, h, &u.cfg.listenConfig)
	if err != nil {
		if h != nil {
			_ = h.Close() // a duplicate
		}
		return nil, err
	}
	if h == nil {
		s, err := sockets.New(k, o.Handle, &u.cfg.listenConfig, origin)
		if err == nil {
			if err = u.mover.AddFresh(o); err != nil {
				err = errors.Join(err, s.Release())
			}
		}
		return s, err
	}
	s, err := sockets.New(k, h, &u.cfg.listenConfig, origin)
	if err != nil {
		_ = o.Handle.Close() // of no use
		return nil, err
	}
	u.mover.Add(s, o)
	return s, nil
}

// shared returns a duplicate of a socket on k's address that has not moved yet, or
// nil.
func (u *Upgrader) shared(k sockets.Key) (sockets.Handle, error) {
	at := sockets.PlaceOf(k.Network, k.Address)
	for _, s := range u.table.All() {
		if s.Entry.Kind != k.Kind || !at.Has(&s.Entry) || !u.mover.Moves(s) {
			continue
		}
		fd, err := fdx.Dup(s.Handle())
		if err != nil {
			return nil, err
		}
		return sockets.Open(k, fd)
	}
	return nil, nil
}

// moved is called for each address that has moved, or can't.
func (u *Upgrader) moved(m rebind.Moved) {
	err, why := m.Err, ""
	if err == nil && m.LossPossible {
		err = fmt.Errorf("handoff: a connection may be lost: %s", m.Reason)
	}
	if err != nil {
		why = err.Error()
	}
	address := m.Network + " " + m.Address
	u.history.moved(u.Generation(), address, why)
	u.emit(Event{Kind: EventMoved, Address: address, Err: err})
}

// suspendMove ends a move of this process, at the Hello of a successor, and notes
// that it may have duplicates of the sockets from now on. In mode
// Inherit sockets do not move.
func (u *Upgrader) suspendMove(up *upgrade) {
	u.mover.Suspend()
	var kinds []wire.SocketKind
	for _, s := range u.table.All() {
		if e := &s.Entry; sockets.Inet(e) && !slices.Contains(kinds, e.Kind) {
			kinds = append(kinds, e.Kind)
		}
	}
	if len(kinds) > 0 && !up.inherit {
		up.holder = u.mover.HoldProcess(int(up.speaker.Load()), kinds...)
	}
}

// resumeMove continues the move when the upgrade has failed. A successor that has
// confirmed the end has closed its listeners, and keeps datagram sockets for answers.
func (u *Upgrader) resumeMove(up *upgrade, res session.Result) {
	if up.holder != nil && res.Parted {
		up.holder.Release(wire.KindListener)
	}
	u.mover.Resume()
}

// released tells the successor that this process has closed its sockets of a kind.
func (u *Upgrader) released(l *session.Lingering, kind wire.SocketKind) {
	if err := u.mover.Released(kind, func(holders []int) { l.Released(kind, holders) }); err != nil {
		u.log.Warn("this process could not release its sockets: the successor does not move to sockets of its own", "error", err)
	}
}

// resetSteering takes the steering program off the groups of this process. One that
// a process has left behind which was killed in its move knows nothing of ours.
func (u *Upgrader) resetSteering() {
	if u.cfg.Mode != Drain {
		return
	}
	for _, s := range u.table.All() {
		if !sockets.Inet(&s.Entry) {
			continue
		}
		if err := reuseport.ResetSteering(s.Handle()); err != nil {
			u.log.Debug("the steering program of a group stays", "address", s.Entry.Bound, "error", err)
		}
	}
}
