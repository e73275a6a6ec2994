package handoff

import (
	"errors"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// What the table knows of members of SO_REUSEPORT groups: its own, and those that
// it keeps for another process.

// keep keeps a loan until takeLoans.
func (t *table) keep(it session.Item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loans = append(t.loans, it)
}

// joining returns the sockets in use, which are to join their groups. Those that
// are added later join at once.
func (t *table) joining() []*socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined = true
	return slices.Clone(t.sockets)
}

// notJoined takes joining back.
func (t *table) notJoined() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined = false
}

// hasPackets reports whether a UDP socket is in use.
func (t *table) hasPackets() bool {
	return slices.ContainsFunc(t.snapshot(), func(s *socket) bool { return s.pc != nil && inet(&s.entry) })
}

// leave closes the TCP and UDP sockets for good, or those of one kind: others
// are in their groups, or have duplicates.
func (t *table) leave(kinds ...wire.SocketKind) error {
	var errs []error
	for _, s := range t.snapshot() {
		if !inet(&s.entry) || !slices.Contains(kinds, s.entry.Kind) || !s.drop() {
			continue
		}
		s.gate.shut()
		errs = append(errs, s.release())
	}
	return errors.Join(errs...)
}

// takeLoans returns the loans, which the caller owns from then on.
func (t *table) takeLoans() []session.Item {
	t.mu.Lock()
	defer t.mu.Unlock()
	loans := t.loans
	t.loans = nil
	return loans
}

// bound returns the sockets in use that are bound as e is.
func (t *table) bound(e *wire.Socket) []*socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.boundLocked(e)
}

func (t *table) boundLocked(e *wire.Socket) []*socket {
	var all []*socket
	for _, s := range t.sockets {
		if s.entry.Kind == e.Kind && inet(&s.entry) && s.entry.Bound == e.Bound && s.entry.Domain == e.Domain {
			all = append(all, s)
		}
	}
	return all
}

// inet reports whether e is a TCP or UDP socket.
func inet(e *wire.Socket) bool {
	if e.Kind != wire.KindListener && e.Kind != wire.KindPacket {
		return false
	}
	switch e.Network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return true
	}
	return false
}
