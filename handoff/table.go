package handoff

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// table holds the sockets of a process: those in use, and those that came from
// a predecessor and have not been asked for yet.
type table struct {
	mu      sync.Mutex
	sockets []*socket       // in the order in which they were opened
	shards  map[key]uint32  // the next shard number of each key
	arrived []*session.Item // nil where claimed; FD is -1 with mode Inherit
	byKey   map[key][]int   // indexes into arrived
	lent    bool            // TCP and UDP sockets that arrive are the predecessor's members, to be drained
	loans   []session.Item  // those that were asked for, or whose address is ours
	joined  bool            // sockets have joined their groups: new ones do so at once
	gates   gateState       // of new sockets
	owner   bool            // paths of unix sockets are ours to remove
	closed  bool
	keeps   bool // see keepsPath

	ending atomic.Bool // the process ends, without a successor
}

func newTable() *table {
	return &table{shards: make(map[key]uint32), byKey: make(map[key][]int)}
}

// add puts a socket into the table and sets its gate as the others' are. from
// is the entry under which it came, or nil; forget, if not nil, is called when
// its user closes it. It takes ownership of s, and reports whether the sockets
// have joined their groups already.
func (t *table) add(s *socket, from *wire.Socket, forget func() error) (joined bool, err error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return false, errors.Join(ErrClosed, s.release())
	}
	defer t.mu.Unlock()
	k := keyOf(&s.entry)
	if from != nil {
		s.entry.Shard = from.Shard
		if keyOf(from) != k {
			s.entry.Shard = t.shards[k] // another of k's may have that number
		}
		switch from.Keeper {
		case wire.KeeperUnit:
			s.entry.Keeper = from.Keeper
		case wire.KeeperStore:
			if name, err := storeName(from); err == nil {
				s.stored = name
				s.kept.Store(true)
			}
		}
		if from.SockType != 0 { // there is a manifest, or the path is systemd's
			s.entry.PathDev, s.entry.PathIno = from.PathDev, from.PathIno
		}
	} else {
		s.entry.Shard = t.shards[k]
		s.here = true
	}
	s.forget = forget
	t.shards[k] = max(t.shards[k], s.entry.Shard+1)
	t.sockets = append(t.sockets, s)
	switch {
	case s.ln != nil:
		s.ln.closing = func() error { return t.drop(s) }
	case s.pc != nil:
		s.pc.closing = func() error { return t.drop(s) }
	}
	if s.gate != nil && t.gates != gatePaused {
		s.gate.set(t.gates)
	}
	return t.joined, nil
}

// nextShard returns the number that the next socket with k gets.
func (t *table) nextShard(k key) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shards[k]
}

// drop closes a socket for good at its user's wish.
func (t *table) drop(s *socket) error {
	if !s.drop() {
		return &net.OpError{Op: "close", Net: s.entry.Network, Err: net.ErrClosed}
	}
	t.mu.Lock()
	for i, o := range t.sockets {
		if o == s {
			t.sockets = append(t.sockets[:i], t.sockets[i+1:]...)
			break
		}
	}
	ours := t.owner || s.here
	if t.ending.Load() && s.kept.Load() {
		ours, t.keeps = false, t.keeps || s.entry.PathIno != 0 // the next process gets it
	}
	t.mu.Unlock()
	if s.gate != nil {
		s.gate.shut()
	}
	err := s.release()
	if s.forget != nil {
		err = errors.Join(err, s.forget())
	}
	if ours {
		err = errors.Join(err, unlink(&s.entry))
	}
	return err
}

// manifest borrows all sockets for a transfer. Sockets that nobody here has
// asked for are not in it: they are closed at commit.
func (t *table) manifest(inherit bool) ([]session.Item, func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	items := make([]session.Item, 0, len(t.sockets))
	held := make([]*socket, 0, len(t.sockets))
	for _, s := range t.sockets {
		if !s.hold() {
			continue
		}
		held = append(held, s)
		it := session.Item{Socket: s.entry, FD: s.fd}
		if s.kept.Load() {
			it.Socket.Keeper = wire.KeeperStore
		}
		if inherit {
			it.FD = -1
		}
		items = append(items, it)
	}
	return items, func() {
		for _, s := range held {
			_ = s.release() // an error belongs to whoever closed it
		}
	}
}

// arrive takes over what a predecessor has passed on.
func (t *table) arrive(items []session.Item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range items {
		k := keyOf(&items[i].Socket)
		t.byKey[k] = append(t.byKey[k], len(t.arrived))
		t.arrived = append(t.arrived, &items[i])
	}
}

// snapshot returns the sockets in use.
func (t *table) snapshot() []*socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*socket(nil), t.sockets...)
}

// setGates sets the gates of all sockets, those to come included.
func (t *table) setGates(g gateState) []*socket {
	t.mu.Lock()
	t.gates = g
	all := append([]*socket(nil), t.sockets...)
	t.mu.Unlock()
	for _, s := range all {
		if s.gate != nil {
			s.gate.set(g)
		}
	}
	return all
}

// open lets Accept return connections.
func (t *table) open() { t.setGates(gateOpen) }

// pause returns when no call is inside of Accept or a read any more. Sockets for
// which serves says so go on.
func (t *table) pause(serves func(*wire.Socket) bool) {
	t.mu.Lock()
	t.gates = gatePaused
	all := slices.DeleteFunc(slices.Clone(t.sockets), func(s *socket) bool { return s.gate == nil || serves(&s.entry) })
	t.mu.Unlock()
	for _, s := range all {
		s.gate.set(gatePaused)
	}
	for _, s := range all {
		s.gate.drain()
	}
}

// shut turns Accept away for good and closes nothing.
func (t *table) shut() { t.setGates(gateShut) }

// entered waits until somebody is in Accept or a read on each socket, or until
// the time is over. What does not listen then has its reasons.
func (t *table) entered(timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for _, s := range t.snapshot() {
		if s.gate == nil {
			continue
		}
		select {
		case <-s.gate.watchEntered():
		case <-timer.C:
			return
		}
	}
}

// answered waits until all who have read a datagram have come back to find the
// gate shut, so that what they have read is answered, or until the time is over.
func (t *table) answered(ctx context.Context, timeout time.Duration) {
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		if !slices.ContainsFunc(t.snapshot(), func(s *socket) bool { return s.pc != nil && s.pc.answering() }) {
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

// own makes this process the one that removes paths, and closes for good what
// the predecessor had and nobody here has asked for.
func (t *table) own() error {
	t.mu.Lock()
	t.owner = true
	left := t.arrived
	t.arrived = nil
	if t.lent {
		// What waits in a socket is served if its address still is.
		for i, it := range left {
			if it != nil && inet(&it.Socket) && len(t.boundLocked(&it.Socket)) > 0 {
				t.loans = append(t.loans, *it)
				left[i] = nil
			}
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, it := range left {
		if it == nil {
			continue
		}
		if it.FD >= 0 {
			errs = append(errs, fdx.Close(it.FD))
		}
		errs = append(errs, unlink(&it.Socket))
	}
	return errors.Join(errs...)
}

// release lets go of the sockets after commit: listeners and files are closed
// here, the successor has them. Datagram sockets stay open for answers.
func (t *table) release() error {
	t.mu.Lock()
	t.owner = false
	for _, s := range t.sockets {
		s.here = false
	}
	t.mu.Unlock()
	t.shut()
	var errs []error
	for _, s := range t.snapshot() {
		if s.pc == nil && s.drop() {
			errs = append(errs, s.release())
		}
	}
	return errors.Join(errs...)
}

// uses reports whether the path of e is that of a socket in use.
func (t *table) uses(e *wire.Socket) bool {
	return slices.ContainsFunc(t.snapshot(), func(s *socket) bool {
		return e.PathIno != 0 && s.entry.PathIno == e.PathIno && s.entry.PathDev == e.PathDev
	})
}

// keepsPath reports whether the next process gets a unix socket that has a path.
func (t *table) keepsPath() bool {
	t.mu.Lock()
	keeps := t.keeps
	t.mu.Unlock()
	return keeps || slices.ContainsFunc(t.snapshot(), func(s *socket) bool { return s.kept.Load() && s.entry.PathIno != 0 })
}

// close closes everything, and removes the paths that are ours, but those of sockets
// that systemd keeps for the next process.
func (t *table) close() error {
	t.mu.Lock()
	t.closed = true
	all, left, loans, owner := t.sockets, t.arrived, t.loans, t.owner
	t.sockets, t.arrived, t.loans = nil, nil, nil
	t.mu.Unlock()
	var errs []error
	for _, it := range loans {
		errs = append(errs, fdx.Close(it.FD))
	}
	for _, it := range left {
		if it == nil {
			continue
		}
		if it.FD >= 0 {
			errs = append(errs, fdx.Close(it.FD))
		}
	}
	for _, s := range all {
		if !s.drop() {
			continue
		}
		if s.gate != nil {
			s.gate.shut()
		}
		errs = append(errs, s.release())
		if (owner || s.here) && !s.kept.Load() {
			errs = append(errs, unlink(&s.entry))
		}
	}
	return errors.Join(errs...)
}

// file returns the file of that name, or nil.
func (t *table) file(name string) *socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sockets {
		if s.file != nil && s.entry.Name == name {
			return s
		}
	}
	return nil
}

// maxCounted bounds the questions that a pause asks the kernel, while nobody
// here accepts: a dump for each unix listener, and one for each TCP address.
const maxCounted = 64

// backlog returns how many connections wait in the queues of all listeners, and
// how many handshakes are under way; -1 where it is not known, or would take
// too long to find out.
func (t *table) backlog() (queue, halfOpen int) {
	ports := make(map[string]bool) // the members of a group share the number
	dumps := 0
	for _, s := range t.snapshot() {
		if s.ln == nil {
			continue
		}
		_, tcp := s.ln.Addr().(*net.TCPAddr)
		if !tcp {
			dumps++
		}
		if queue >= 0 && (tcp || dumps <= maxCounted) {
			n, _, err := reuseport.QueueLen(s.ln)
			queue += n
			if err != nil {
				queue = -1
			}
		} else {
			queue = -1
		}
		if !tcp || halfOpen < 0 || ports[s.entry.Bound] {
			continue
		}
		ports[s.entry.Bound] = true
		n, err := reuseport.HalfOpen(s.ln)
		halfOpen += n
		if err != nil || len(ports) > maxCounted {
			halfOpen = -1
		}
	}
	return queue, halfOpen
}

// accepted counts the connections that all listeners have accepted here.
func (t *table) accepted() uint64 {
	var n uint64
	for _, s := range t.snapshot() {
		if s.ln != nil {
			n += s.ln.Accepted()
		}
	}
	return n
}
