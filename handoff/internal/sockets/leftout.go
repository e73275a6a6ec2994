package sockets

import (
	"path/filepath"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// A LeftOut is a socket of the predecessor's that the program has not asked for.
type LeftOut struct {
	Entry wire.Socket
	// By is the address of a socket of this process that gets a part of what is for
	// Entry, or all, if it is Covered. It is empty if there is none.
	By      string
	Covered bool
}

// LeaveOut ends the matching of what the predecessor has passed on. It returns the
// listeners and datagram sockets that no Listen has taken, and how many there are in
// all; none that ServeLeft takes.
func (t *Table) LeaveOut() (left []LeftOut, all int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.arrived.all {
		e := &a.Entry
		if e.Leaving || e.Kind != wire.KindListener && e.Kind != wire.KindPacket {
			continue
		}
		all++
		if a.matched || t.adoptsLocked(a) != nil {
			continue
		}
		a.left = true
		l := LeftOut{Entry: *e}
		at := placeOf(e)
		for _, s := range t.sockets {
			if p := placeOf(&s.Entry); s.Entry.Kind == e.Kind && p.overlaps(at) && !l.Covered {
				l.By, l.Covered = s.Entry.Bound, p.covers(at)
			}
			if s.Entry.Kind == e.Kind && !Inet(e) && s.Entry.Network == e.Network && s.Entry.Bound == e.Bound {
				l.By, l.Covered = s.Entry.Bound, true // it has the path: see Astray
			}
		}
		left = append(left, l)
	}
	return left, all
}

// Overlapping returns the TCP and UDP sockets that have arrived, that no Listen has
// taken, and whose address overlaps that of k: one for k can't be bound beside them
// without more.
func (t *Table) Overlapping(k Key) []Arrived {
	t.mu.Lock()
	none := len(t.arrived.all) == 0
	t.mu.Unlock()
	if none {
		return nil
	}
	at := PlaceOf(k.Network, k.Address)
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Arrived
	for _, a := range t.arrived.all {
		if !a.matched && a.Entry.Kind == k.Kind && Inet(&a.Entry) && at.overlaps(placeOf(&a.Entry)) {
			all = append(all, a.Arrived)
		}
	}
	return all
}

// Astray returns the entry of the arrived unix listener that answers k, and whose path does
// not lead to it any more, or nil. A path that a socket unit has is systemd's.
func (t *Table) Astray(k Key) *wire.Socket {
	t.mu.Lock()
	var found *wire.Socket
	for _, a := range t.arrived.byKey[k] {
		e := &a.Entry
		if !a.matched && !a.left && e.Kind == wire.KindListener && e.PathIno != 0 && filepath.IsAbs(e.Bound) && e.Bound == k.Address && e.Keeper != wire.KeeperUnit {
			clone := *e
			found = &clone
			break
		}
	}
	t.mu.Unlock()
	if found == nil {
		return nil
	}
	if here, err := InPlace(found, found.Bound); here || err != nil {
		return nil
	}
	return found
}

// Keep has the program serve those of left on while the others are paused: the
// successor does not. The next call ends that, and Shut.
func (t *Table) Keep(left []wire.Socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = nil
	for _, s := range t.sockets {
		if slices.ContainsFunc(left, func(e wire.Socket) bool { return KeyOf(&e) == KeyOf(&s.Entry) && e.Shard == s.Entry.Shard }) {
			t.kept = append(t.kept, s)
		}
	}
	for _, l := range t.leaving {
		if slices.Contains(t.kept, l.to.Load()) {
			t.kept = append(t.kept, &l.Socket)
		}
	}
}

// Kept returns what Keep has kept.
func (t *Table) Kept() []*Socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.kept)
}
