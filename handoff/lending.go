package handoff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// lending is the successor's side: what it knows of a predecessor in mode Drain.
type lending struct {
	predecessor int                               // its process ID, 0 if it isn't known
	told        map[wire.SocketKind]chan struct{} // closed when it says that it has closed its members
	over        chan struct{}                     // closed when the conversation is
	mu          sync.Mutex
	loans       []sockets.Arrived // its members that the program has asked for, or whose address is ours
}

func newLending(pid int) *lending {
	return &lending{
		predecessor: pid,
		told:        map[wire.SocketKind]chan struct{}{wire.KindListener: make(chan struct{}), wire.KindPacket: make(chan struct{})},
		over:        make(chan struct{}),
	}
}

func (l *lending) note(c chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

// keep keeps a loan until takeLoans.
func (l *lending) keep(a sockets.Arrived) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loans = append(l.loans, a)
}

// takeLoans returns the loans, which the caller owns from then on.
func (l *lending) takeLoans() []session.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	var items []session.Item
	for _, a := range l.loans {
		items = append(items, session.Item{Socket: a.Entry, FD: int(a.Source.(sockets.Descriptor))})
	}
	l.loans = nil
	return items
}

// close closes the loans.
func (l *lending) close() {
	if l == nil {
		return
	}
	for _, it := range l.takeLoans() {
		_ = fdx.Close(it.FD) // a duplicate
	}
}

// linger notes what a lingering predecessor says.
func (l *lending) linger(m wire.Linger) {
	if l == nil {
		return
	}
	l.note(l.told[wire.KindListener])
	if !m.Holds {
		l.note(l.told[wire.KindPacket])
	}
}

// says reports whether it has said that it has closed its members of a kind.
func (l *lending) says(kind wire.SocketKind) bool {
	select {
	case <-l.told[kind]:
		return true
	default:
		return false
	}
}

// ended notes that the predecessor says nothing more.
func (l *lending) ended() {
	if l != nil {
		l.note(l.over)
	}
}

// lend borrows the members that the predecessor has to have before they join.
func (u *Upgrader) lend() ([]session.Item, func()) {
	var items []session.Item
	var held []*sockets.Socket
	for _, s := range u.table.All() {
		if !s.Joins() {
			continue
		}
		if fd, ok := s.Hold(); ok {
			held = append(held, s)
			items = append(items, session.Item{Socket: s.Entry, FD: fd})
		}
	}
	return items, func() {
		for _, s := range held {
			_ = s.Release() // an error belongs to whoever closed it
		}
	}
}

// joinGroups has the kernel give our members their share. Those that are made
// from then on join where they are made, see add.
func (u *Upgrader) joinGroups() error {
	for _, s := range u.table.Joining() {
		if err := s.Join(); err != nil {
			u.table.NotJoined()
			return fmt.Errorf("handoff: join %s %s: %w", s.Entry.Network, s.Entry.Bound, explainForeign(err))
		}
	}
	return nil
}

// unsteer takes the steering off our groups, in which other processes may have
// members: one that was killed while it drained has left its program behind, and
// a program knows nothing of a new member. Where somebody steers or drains at
// this moment it does nothing: he takes the program off himself at his end.
//
// The first process of a line does it; a successor does it by draining its
// predecessor's members.
func (u *Upgrader) unsteer() {
	now, cancel := context.WithCancel(context.Background())
	cancel() // to wait for nobody's turn
	members := slices.DeleteFunc(u.table.All(), func(s *sockets.Socket) bool { return !sockets.Inet(&s.Entry) })
	for _, group := range crowds(members) {
		c, err := newCrowd(context.Background(), group, u.cfg)
		if err == nil {
			err = errors.Join(c.shun(now), c.close()) // nobody; duplicates
		}
		if err != nil {
			u.log.Debug("take steering off", "address", group[0].Entry.Bound, "error", err)
		}
	}
}
