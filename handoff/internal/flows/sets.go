package flows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Key is what the program asks for.
type Key struct{ Network, Address string }

func (k Key) String() string { return k.Network + " " + k.Address }

// An Item is a lane, or the rendezvous or the table of the lanes of an address, with its
// entry in the manifest. In the manifest the table comes last, and has no SockType, and
// the rendezvous listens.
type Item struct {
	Entry wire.Socket
	FD    int
}

// Sets are those of a process, and those that a predecessor has passed on. The zero value
// has none.
type Sets struct {
	mu      sync.Mutex
	all     []*Set
	arrived []*arrival
	closed  bool
}

// An arrival is an address that a predecessor has passed on, and that the program has not
// asked for.
type arrival struct {
	key   Key
	entry wire.Socket // of lane 0
	lanes group
	table int
	meet  int // the listener of the rendezvous; -1 if there is none
}

func (a *arrival) close() error {
	err := a.lanes.close()
	for _, fd := range []int{a.table, a.meet} {
		if fd >= 0 {
			err = errors.Join(err, fdx.Close(fd))
		}
	}
	return err
}

// Arrive takes over what a predecessor has passed on, the descriptors included.
func (ss *Sets) Arrive(items []Item) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, it := range items {
		k := Key{it.Entry.Network, it.Entry.Address}
		i := slices.IndexFunc(ss.arrived, func(a *arrival) bool { return a.key == k && a.table < 0 })
		if i < 0 {
			i = len(ss.arrived)
			ss.arrived = append(ss.arrived, &arrival{key: k, entry: it.Entry, table: -1, meet: -1})
		}
		a := ss.arrived[i]
		switch {
		case it.Entry.SockType == 0:
			a.table = it.FD
		case it.Entry.Listening:
			a.meet = it.FD
		default:
			a.lanes = append(a.lanes, it.FD)
		}
	}
}

// take returns the arrival for k.
func (ss *Sets) take(k Key) *arrival {
	ss.mu.Lock()
	same := func(a *arrival) bool { return a.key == k }
	i := slices.IndexFunc(ss.arrived, same)
	if i < 0 && len(ss.arrived) > 0 {
		ss.mu.Unlock()
		at := sockets.PlaceOf(k.Network, k.Address) // may ask a resolver
		ss.mu.Lock()
		i = slices.IndexFunc(ss.arrived, func(a *arrival) bool { return at.Has(packet(a.entry)) })
	}
	defer ss.mu.Unlock()
	if i < 0 {
		return nil
	}
	a := ss.arrived[i]
	ss.arrived = slices.Delete(ss.arrived, i, i+1)
	return a
}

// packet is a lane's entry as package sockets reads it.
func packet(e wire.Socket) *wire.Socket {
	e.Kind = wire.KindPacket
	return &e
}

// Listen returns the lanes of k that a predecessor has passed on, or binds them. find may
// return a socket that is bound there already, which becomes lane 0, and stays the
// caller's; shared says that another process reads it.
func (ss *Sets) Listen(ctx context.Context, lc net.ListenConfig, k Key, c Choice, find func() (c syscall.Conn, shared bool, err error)) (*Set, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", failure.Unsupported, err)
	}
	var s *Set
	var err error
	if a := ss.take(k); a != nil {
		s, err = join(k, a, c, false)
	} else {
		var old syscall.Conn
		var shared bool
		if old, shared, err = find(); err == nil {
			s, err = first(ctx, lc, k, c, old, shared)
		}
		if old == nil && errors.Is(err, syscall.EADDRINUSE) {
			s, err = again(ctx, lc, k, c, err)
		}
	}
	if err != nil {
		return nil, err
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.closed {
		return nil, errors.Join(failure.Closed, s.Close())
	}
	ss.all = append(ss.all, s)
	return s, nil
}

// again takes the address over from processes that linger, if the one that served has
// ended without a successor; cause is the error of bind.
func again(ctx context.Context, lc net.ListenConfig, k Key, c Choice, cause error) (*Set, error) {
	a, err := ask(ctx, k)
	switch {
	case err == nil:
		return join(k, a, c, true)
	case errors.Is(err, syscall.ECONNREFUSED): // the last one has ended just now, or another service has the address
		return first(ctx, lc, k, c, nil, false)
	}
	return nil, fmt.Errorf("%w: %w", cause, err)
}

// list returns the sets in use.
func (ss *Sets) list() []*Set {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return slices.Clone(ss.all)
}

// Remove closes a set, and passes it on no more.
func (ss *Sets) Remove(s *Set) error {
	ss.mu.Lock()
	ss.all = slices.DeleteFunc(ss.all, func(o *Set) bool { return o == s })
	ss.mu.Unlock()
	return s.Close()
}

// Items returns duplicates of all that goes to a successor, which the caller closes.
func (ss *Sets) Items() ([]Item, error) {
	var items []Item
	for _, s := range ss.list() {
		more, err := s.items()
		if err != nil {
			for _, it := range items {
				_ = fdx.Close(it.FD) // a duplicate
			}
			return nil, err
		}
		items = append(items, more...)
	}
	return items, nil
}

func (s *Set) items() (items []Item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	if now, err := s.t.state(); err == nil && now.lane == s.lane {
		s.limit = now.turn + 1 // the successor's switch
	}
	fds := slices.Clone(s.g)
	if s.meet != nil {
		fd, err := fdx.Dup(s.meet)
		if err != nil {
			return nil, err
		}
		defer fdx.Close(fd)
		fds = append(fds, fd)
	}
	for i, fd := range append(fds, s.t.shared) {
		it := Item{Entry: wire.Socket{Kind: wire.KindLane, Network: s.key.Network, Address: s.key.Address, Shard: uint32(i)}}
		if i < len(fds) {
			info, ierr := fdx.Info(fd)
			err = ierr
			it.Entry.Domain, it.Entry.SockType, it.Entry.Protocol = int32(info.Domain), int32(info.Type), int32(info.Protocol)
			it.Entry.Sockname, it.Entry.Bound, it.Entry.Listening = info.Sockname, s.conn.LocalAddr().String(), info.Listening
		}
		if err == nil {
			it.FD, err = fdx.DupFD(fd)
		}
		if err != nil {
			for _, it := range items {
				_ = fdx.Close(it.FD) // a duplicate
			}
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// Room reports why a successor would get no lane, or nil.
func (ss *Sets) Room() error {
	for _, s := range ss.list() {
		s.mu.Lock()
		free := s.closed
		for lane := 0; lane < s.n && !free; lane++ {
			taken, err := s.t.taken(lane)
			free = err != nil || !taken && lane != s.lane // the successor sees the error again
		}
		s.mu.Unlock()
		if !free {
			return s.full()
		}
	}
	return nil
}

// Serve makes the lanes of this process the current ones, or, on an error, none.
func (ss *Sets) Serve() error {
	for i, s := range ss.list() {
		if err := s.Serve(); err != nil {
			for _, s := range ss.list()[:i] {
				err = errors.Join(err, s.Undo())
			}
			return fmt.Errorf("%v: %w", s.key, err)
		}
	}
	return nil
}

// Undo undoes Serve.
func (ss *Sets) Undo() error {
	var errs []error
	for _, s := range ss.list() {
		errs = append(errs, s.Undo())
	}
	return errors.Join(errs...)
}

// Own has this process keep its addresses: from now on Serve of its predecessor fails.
func (ss *Sets) Own() error {
	var errs []error
	for _, s := range ss.list() {
		errs = append(errs, s.Own())
	}
	return errors.Join(errs...)
}

// Offer says that this process has left new flows to others. If those end without a
// successor, a process that starts anew gets the lanes from this one.
func (ss *Sets) Offer() {
	for _, s := range ss.list() {
		s.mu.Lock()
		s.offers = true
		s.mu.Unlock()
	}
}

// Look has each set look soon whether lanes of others are free.
func (ss *Sets) Look() {
	for _, s := range ss.list() {
		s.Look()
	}
}

// Left returns lane 0 of each address that has arrived and that the program has not asked
// for, as an entry of a datagram socket.
func (ss *Sets) Left() []wire.Socket {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	var all []wire.Socket
	for _, a := range ss.arrived {
		all = append(all, *packet(a.entry))
	}
	return all
}

// Joined returns how many addresses are in use.
func (ss *Sets) Joined() int { return len(ss.list()) }

// CloseLeft closes what the program has not asked for.
func (ss *Sets) CloseLeft() error {
	ss.mu.Lock()
	left := ss.arrived
	ss.arrived = nil
	ss.mu.Unlock()
	var errs []error
	for _, a := range left {
		errs = append(errs, a.close())
	}
	return errors.Join(errs...)
}

// Close closes all.
func (ss *Sets) Close() error {
	ss.mu.Lock()
	ss.closed = true
	all := ss.all
	ss.all = nil
	ss.mu.Unlock()
	errs := []error{ss.CloseLeft()}
	for _, s := range all {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Status is an address and its lanes.
type Status struct {
	Network, Address string
	Lanes            int   // all
	Lane             int   // that of this process
	Current          int   // that which gets new flows; -1 if it can't be read
	Used             []int // those that processes have
	Kept             int   // flows of this process without an ID
	Unverified       string
	Alone            string // why no process can take over after a crash
}

// Status returns the state of each address.
func (ss *Sets) Status() []Status {
	var all []Status
	for _, s := range ss.list() {
		s.mu.Lock()
		if !s.closed {
			st := Status{
				Network: s.key.Network, Address: s.conn.LocalAddr().String(),
				Lanes: s.n, Lane: s.lane, Kept: len(s.clients), Unverified: s.blind, Alone: s.alone,
			}
			st.Current = -1
			if now, err := s.t.state(); err == nil {
				st.Current = now.lane
			}
			for lane := range s.n {
				if taken, err := s.t.taken(lane); lane == s.lane || err == nil && taken {
					st.Used = append(st.Used, lane)
				}
			}
			all = append(all, st)
		}
		s.mu.Unlock()
	}
	return all
}
