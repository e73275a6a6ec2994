package sockets

import (
	"errors"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// What the table knows of members of SO_REUSEPORT groups.

// Joining returns the sockets in use, which are to join their groups. Those that
// are added later join at once.
func (t *Table) Joining() []*Socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined = true
	return slices.Clone(t.sockets)
}

// NotJoined takes Joining back.
func (t *Table) NotJoined() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined = false
}

// HasPackets reports whether a UDP socket is in use.
func (t *Table) HasPackets() bool {
	return slices.ContainsFunc(t.All(), func(s *Socket) bool { return s.PacketConn != nil && Inet(&s.Entry) })
}

// Leave closes the TCP and UDP sockets of one kind for good: others are in their
// groups, or have duplicates.
func (t *Table) Leave(kind wire.SocketKind) error {
	var errs []error
	for _, s := range t.All() {
		if Inet(&s.Entry) && s.Entry.Kind == kind {
			_, err := s.Drop()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Bound returns the sockets in use that are bound as e is.
func (t *Table) Bound(e *wire.Socket) []*Socket {
	return slices.DeleteFunc(t.All(), func(s *Socket) bool {
		return s.Entry.Kind != e.Kind || !Inet(&s.Entry) || s.Entry.Bound != e.Bound || s.Entry.Domain != e.Domain
	})
}
