package sockets

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// A Table holds the sockets of a process: those in use, and those that came from
// a predecessor and that the program has not asked for yet.
type Table struct {
	mu      sync.Mutex
	sockets []*Socket      // in the order in which they were opened
	shards  map[Key]uint32 // the next shard number of each key
	arrived arrivals
	leaving []*Leaving
	left    []chan struct{} // closed when none leaves
	kept    []*Socket       // the program serves them although the others are paused
	gates   gateState       // of new sockets
	paths   paths
	closed  bool

	keepsPath bool

	loads shared[[]Load] // for the status

	pumps sync.WaitGroup // of what leaves

	// Ending says that the process ends without a successor.
	Ending atomic.Bool
}

// paths says of which unix sockets this process removes the path when it closes them.
type paths uint8

const (
	pathsBound paths = iota // those that it has bound: it does not serve yet
	pathsAll                // it serves
	pathsNone               // a successor serves
)

// NewTable returns an empty table whose gates are paused.
func NewTable() *Table {
	return &Table{shards: make(map[Key]uint32)}
}

// Add puts a socket into the table and sets its gate as the others' are. forget
// is called when its user closes it. It takes ownership of s.
func (t *Table) Add(s *Socket, forget func() error) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return errors.Join(failure.Closed, s.Release())
	}
	defer t.mu.Unlock()
	k := KeyOf(&s.Entry)
	s.Entry.Shard = t.shards[k]
	if o := s.origin; o != nil && o.Entry != nil && KeyOf(o.Entry) == k {
		s.Entry.Shard = o.Entry.Shard // under another key it may be taken
	}
	s.forget = forget
	t.shards[k] = max(t.shards[k], s.Entry.Shard+1)
	t.sockets = append(t.sockets, s)
	closing := func() error { return t.Drop(s) }
	switch {
	case s.Listener != nil:
		s.Listener.closing = closing
	case s.PacketConn != nil:
		s.PacketConn.closing = closing
	}
	t.setGateLocked(s)
	return nil
}

// setGateLocked gives s the state of the other gates.
func (t *Table) setGateLocked(s *Socket) {
	if s.gate != nil && t.gates != gatePaused && (t.gates == gateShut || !s.deferred.Load()) {
		s.gate.set(t.gates)
	}
}

// Begin ends what [Socket.Defer] began.
func (t *Table) Begin(s *Socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.deferred.Store(false)
	t.setGateLocked(s)
}

// NextShard returns the number that the next socket with k gets.
func (t *Table) NextShard(k Key) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shards[k]
}

// Drop closes a socket for good at its user's wish.
func (t *Table) Drop(s *Socket) error {
	dropped, err := t.discard(s, t.Ending.Load())
	if !dropped {
		return &net.OpError{Op: "close", Net: s.Entry.Network, Err: net.ErrClosed}
	}
	err = errors.Join(err, t.abandon(s))
	if s.forget != nil {
		err = errors.Join(err, s.forget())
	}
	return err
}

// Fail is Drop for a socket that can't serve: Accept returns err.
func (t *Table) Fail(s *Socket, err error) error {
	s.gate.fail(err)
	return t.Drop(s)
}

// discard closes a socket and removes its path, if that is this process's; where the
// process ends, the path of a socket that systemd has stored stays for the next one.
// It reports false if the socket was closed before.
func (t *Table) discard(s *Socket, ending bool) (dropped bool, err error) {
	if dropped, err = s.Drop(); !dropped {
		return false, nil
	}
	t.mu.Lock()
	if i := slices.Index(t.sockets, s); i >= 0 {
		t.sockets = slices.Delete(t.sockets, i, i+1)
	}
	ours := t.paths == pathsAll || t.paths == pathsBound && s.origin == nil
	if ending && s.Stored() != "" {
		ours, t.keepsPath = false, t.keepsPath || s.Entry.PathIno != 0
	}
	t.mu.Unlock()
	if ours {
		err = errors.Join(err, Unlink(&s.Entry))
	}
	return true, err
}

// Arrive takes over what a predecessor has passed on.
func (t *Table) Arrive(all []Arrived) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.arrived.add(all)
}

// Match takes the arrived socket that answers k: the first for which the
// predecessor's program asked with k; or, if k has a name, the first of that name;
// or else one that is bound to k's address. Where sameAddress is set, a TCP or UDP
// socket of that name must have the address, too.
func (t *Table) Match(k Key, sameAddress bool) (Arrived, bool) {
	t.mu.Lock()
	a, ok := t.arrived.same(k)
	left := len(t.arrived.all)
	t.mu.Unlock()
	if ok || left == 0 {
		return a, ok
	}
	at := PlaceOf(k.Network, k.Address)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.arrived.similar(k, at, sameAddress)
}

// All returns the sockets in use.
func (t *Table) All() []*Socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.sockets)
}

// setGates sets the gates of all sockets, those to come included.
func (t *Table) setGates(state gateState) {
	t.mu.Lock()
	defer t.mu.Unlock() // no gate has another state than the table when it is free
	t.gates = state
	for _, g := range t.gatesLocked(state) {
		g.set(state)
	}
}

// gatesLocked returns the gates that a change to a state concerns.
func (t *Table) gatesLocked(state gateState) []*gate {
	var all []*gate
	add := func(s *Socket) {
		kept := state == gatePaused && slices.Contains(t.kept, s)
		if s.gate != nil && !kept && (state != gateOpen || !s.deferred.Load()) {
			all = append(all, s.gate)
		}
	}
	for _, s := range t.sockets {
		add(s)
	}
	for _, l := range t.leaving {
		add(&l.Socket)
	}
	return all
}

// Open lets Accept and reads through.
func (t *Table) Open() { t.setGates(gateOpen) }

// Pause makes Accept and reads wait, without waiting for those that are under way: Drain
// does.
func (t *Table) Pause() { t.setGates(gatePaused) }

// Drain returns when no call is inside of Accept or a read any more.
func (t *Table) Drain() {
	t.mu.Lock()
	all := t.gatesLocked(gatePaused)
	t.mu.Unlock()
	for _, g := range all {
		g.drain()
	}
}

// Shut turns Accept and reads away for good and closes nothing.
func (t *Table) Shut() { t.setGates(gateShut) }

// Entered waits until a call is in Accept or a read on each socket, or until the
// time is over: a program may have a socket that it does not serve yet.
func (t *Table) Entered(timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for _, s := range t.All() {
		if s.gate == nil || s.deferred.Load() {
			continue
		}
		select {
		case <-s.gate.watchEntered():
		case <-timer.C:
			return
		}
	}
}

// Answered waits until all goroutines that have read a datagram have come back to
// find the gate shut, so that what they have read is answered, or until the time is
// over.
func (t *Table) Answered(ctx context.Context, timeout time.Duration) {
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		if !slices.ContainsFunc(t.All(), func(s *Socket) bool { return s.PacketConn != nil && s.PacketConn.answering() }) {
			return
		}
		look := time.NewTimer(pause)
		select {
		case <-look.C:
			continue
		case <-limit.C:
		case <-ctx.Done():
		}
		look.Stop()
		return
	}
}

// Asked returns how many sockets of the predecessor a Listen has taken, and how many
// there were.
func (t *Table) Asked() (asked, all int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.arrived.all {
		if a.matched {
			asked++
		}
	}
	return asked, len(t.arrived.all)
}

// Own makes this process the one that removes paths. It returns the sockets of the
// predecessor that the program has not asked for.
func (t *Table) Own() []Arrived {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paths = pathsAll
	return t.arrived.takeRest()
}

// Release lets go of the sockets after commit, but for those that Keep has kept: it closes
// listeners and files, which the successor has. Datagram sockets stay open for answers.
// Accept waits until Shut.
func (t *Table) Release() error {
	t.mu.Lock()
	t.paths = pathsNone
	all := slices.DeleteFunc(slices.Clone(t.sockets), func(s *Socket) bool { return s.PacketConn != nil })
	for _, l := range t.leaving {
		all = append(all, &l.Socket)
	}
	all = slices.DeleteFunc(all, func(s *Socket) bool { return slices.Contains(t.kept, s) })
	t.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.Retire())
	}
	return errors.Join(errs...)
}

// Uses reports whether the path of e is that of a socket in use.
func (t *Table) Uses(e *wire.Socket) bool {
	return slices.ContainsFunc(t.All(), func(s *Socket) bool {
		return e.PathIno != 0 && s.Entry.PathIno == e.PathIno && s.Entry.PathDev == e.PathDev
	})
}

// KeepsPath reports whether a path was left for the next process, to which systemd
// passes the socket.
func (t *Table) KeepsPath() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keepsPath
}

// Close closes everything. No socket can be added any more.
func (t *Table) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	left, leaving := t.arrived.takeRest(), t.leaving
	t.leaving = nil
	t.leftLocked()
	t.mu.Unlock()
	var errs []error
	for _, l := range leaving {
		_, err := l.Drop()
		errs = append(errs, err)
	}
	for _, a := range left {
		errs = append(errs, a.Source.Close())
	}
	for _, s := range t.All() {
		_, err := t.discard(s, true)
		errs = append(errs, err)
		s.leave()
	}
	t.pumps.Wait()
	return errors.Join(errs...)
}

// DropKind closes the TCP and UDP sockets of one kind for good: another process has
// duplicates of them.
func (t *Table) DropKind(kind wire.SocketKind) error {
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
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.boundLocked(e)
}

func (t *Table) boundLocked(e *wire.Socket) []*Socket {
	return slices.DeleteFunc(slices.Clone(t.sockets), func(s *Socket) bool {
		return s.Entry.Kind != e.Kind || !Inet(&s.Entry) || s.Entry.Bound != e.Bound || s.Entry.Domain != e.Domain
	})
}

// File returns the file of that name, or nil.
func (t *Table) File(name string) *Socket {
	for _, s := range t.All() {
		if s.Entry.Kind == wire.KindFile && s.Entry.Name == name {
			return s
		}
	}
	return nil
}

// Accepted counts the connections that all listeners have accepted here.
func (t *Table) Accepted() uint64 {
	var n uint64
	for _, s := range t.All() {
		if s.Listener != nil {
			n += s.Listener.Accepted()
		}
	}
	return n
}
