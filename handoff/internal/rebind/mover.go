package rebind

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// kinds are those of which each is released by itself.
var kinds = []wire.SocketKind{wire.KindListener, wire.KindPacket}

// A Moved is the account of one address.
type Moved struct {
	Network, Address string
	reuseport.Report
	Err error // why the shared sockets are served on
}

// A Mover moves the sockets of a process, address by address.
type Mover struct {
	table *sockets.Table
	log   hclog.Logger
	tell  func(Moved)

	mu      sync.Mutex
	own     map[*sockets.Socket]*Own // the sockets that have not moved yet
	fresh   []*Own                   // on addresses of this process alone
	joined  bool                     // Join was called
	late    map[*sockets.Socket]*Own // that listen with JoinLate
	holders []*holding
	changed chan struct{}      // closed and replaced when own or holders change
	cancel  context.CancelFunc // nil while it does not move
	done    chan struct{}      // closed when the move that cancel ends is over

	watchers sync.WaitGroup // of processes
}

// New returns a Mover for the sockets of t, which tells of each address.
func New(t *sockets.Table, log hclog.Logger, tell func(Moved)) *Mover {
	return &Mover{table: t, log: log, tell: tell, own: make(map[*sockets.Socket]*Own), changed: make(chan struct{})}
}

func (m *Mover) changedLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Add has s move to o, which the Mover owns from then on.
func (m *Mover) Add(s *sockets.Socket, o *Own) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own[s] = o
	m.changedLocked()
}

// AddFresh takes in a socket whose address no predecessor has. It joins its group
// with Join, or at once if that was called.
func (m *Mover) AddFresh(o *Own) error {
	m.mu.Lock()
	joined := m.joined
	if !joined {
		m.fresh = append(m.fresh, o)
	}
	m.mu.Unlock()
	if joined {
		return o.Join()
	}
	return nil
}

// Join has the fresh sockets join their groups.
func (m *Mover) Join() error {
	m.mu.Lock()
	m.joined = true
	fresh := m.fresh
	m.fresh = nil
	m.mu.Unlock()
	for _, o := range fresh {
		if err := o.Join(); err != nil && !errors.Is(err, net.ErrClosed) { // by its user
			return err
		}
	}
	return nil
}

// AddLate takes in what listens with JoinLate: s, whose handle is o's.
func (m *Mover) AddLate(s *sockets.Socket, o *Own) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.late == nil {
		m.late = make(map[*sockets.Socket]*Own)
	}
	m.late[s] = o
}

// JoinLate has the late sockets listen, and their programs accept. It closes those that
// can't listen, and returns why: their Accept returns that, too.
func (m *Mover) JoinLate() (errs []error) {
	for s, o := range m.takeLate() {
		err := o.Join()
		_ = o.Release() // duplicates
		switch {
		case err == nil:
			m.table.Begin(s)
		case !errors.Is(err, net.ErrClosed): // by its user
			err = fmt.Errorf("%s %s: %w", s.Entry.Network, s.Entry.Bound, err)
			errs = append(errs, err)
			_ = m.table.Fail(s, err) // that is the error that counts
		}
	}
	return errs
}

func (m *Mover) takeLate() map[*sockets.Socket]*Own {
	m.mu.Lock()
	defer m.mu.Unlock()
	late := m.late
	m.late = nil
	return late
}

// Moves reports whether s is still to move.
func (m *Mover) Moves(s *sockets.Socket) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own[s] != nil
}

// Drop closes what s was to move to: its user has closed it, or it serves on as it
// is.
func (m *Mover) Drop(s *sockets.Socket) error {
	m.mu.Lock()
	o := m.own[s]
	delete(m.own, s)
	m.mu.Unlock()
	if o == nil {
		return nil
	}
	return o.Handle.Close()
}

// Resume begins to move, or continues after Suspend.
func (m *Mover) Resume() {
	ctx, cancel := context.WithCancel(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel != nil {
		cancel()
		return
	}
	m.cancel, m.done = cancel, make(chan struct{})
	go m.run(ctx, m.done) // ends with Suspend, which waits for it
}

// Suspend ends the move that is under way, if there is one: the kernel's hash
// spreads the traffic when it returns, over the sockets that are left.
func (m *Mover) Suspend() {
	m.mu.Lock()
	cancel, done := m.cancel, m.done
	m.cancel = nil
	m.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// Stop ends the move for good and closes what did not take its place.
func (m *Mover) Stop() error {
	m.Suspend()
	m.mu.Lock()
	own := m.own
	m.own = make(map[*sockets.Socket]*Own)
	m.mu.Unlock()
	var errs []error
	for _, o := range own {
		errs = append(errs, o.Handle.Close())
	}
	return errors.Join(errs...)
}

// Close is Stop, and ends the watch of other processes.
func (m *Mover) Close() error {
	err := m.Stop()
	for _, o := range m.takeLate() {
		err = errors.Join(err, o.Release())
	}
	m.mu.Lock()
	holders := m.holders
	m.holders = nil
	m.mu.Unlock()
	for _, h := range holders {
		h.stop()
	}
	m.watchers.Wait()
	return err
}

func (m *Mover) run(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, kind := range kinds {
		wg.Go(func() { m.moveAll(ctx, kind) }) // ends with ctx
	}
}

// moveAll moves the sockets of one kind when no other process has duplicates, and
// those that are added later.
func (m *Mover) moveAll(ctx context.Context, kind wire.SocketKind) {
	for {
		m.mu.Lock()
		changed := m.changed
		held := slices.ContainsFunc(m.holders, func(h *holding) bool { return h.has(kind) })
		m.mu.Unlock()
		if !held {
			var wg sync.WaitGroup
			for _, a := range m.addresses(kind) {
				wg.Go(func() { m.move(ctx, a) }) // ends with its work, or with ctx
			}
			wg.Wait()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// addresses returns an entry for each address on which sockets of a kind have to
// move, or leave.
func (m *Mover) addresses(kind wire.SocketKind) []*wire.Socket {
	var all []*wire.Socket
	add := func(e *wire.Socket) {
		if e.Kind == kind && !slices.ContainsFunc(all, func(o *wire.Socket) bool { return sameAddress(o, e) }) {
			all = append(all, e)
		}
	}
	for _, s := range m.table.All() {
		if m.Moves(s) {
			add(&s.Entry)
		}
	}
	for _, l := range m.table.Leaving() {
		add(&l.Entry)
	}
	return all
}

// move moves the sockets on the address of e.
func (m *Mover) move(ctx context.Context, e *wire.Socket) {
	account := Moved{Network: e.Network, Address: e.Bound}
	account.Err = m.rebind(e)
	own, old := m.group(e)
	if account.Err == nil && len(own) > 0 && len(old) > 0 {
		account.Report, account.Err = m.leave(ctx, own, old)
	}
	switch {
	case ctx.Err() != nil && account.Err != nil:
		m.log.Debug("the move to own sockets has not ended", "address", e.Bound, "left", account.Left)
		return
	case account.Err != nil:
		m.log.Error("the move to own sockets failed: this process serves those of the predecessor", "address", e.Bound, "error", account.Err)
	case account.LossPossible:
		m.log.Warn("moved to own sockets, and a loss was possible", "address", e.Bound, "reason", account.Reason)
	default:
		m.log.Info("moved to own sockets", "address", e.Bound, "strategy", account.Strategy, "members", account.Members, "took", account.Duration)
	}
	m.tell(account)
}

// rebind has the own sockets on the address of e take their places.
func (m *Mover) rebind(e *wire.Socket) error {
	var errs []error
	for _, s := range m.table.Bound(e) {
		m.mu.Lock()
		o := m.own[s]
		delete(m.own, s)
		m.mu.Unlock()
		if o == nil {
			continue
		}
		err := o.Join()
		if err == nil {
			err = m.table.Replace(s, o.Handle)
		}
		if errors.Is(err, net.ErrClosed) { // by its user, meanwhile
			err = nil
		} else if err != nil {
			err = fmt.Errorf("%s %s: %w", e.Network, e.Bound, err)
		} else {
			continue
		}
		errs = append(errs, err, o.Handle.Close())
	}
	return errors.Join(errs...)
}

// group returns the sockets of the address of e that stay, and the duplicates of
// each one that leaves. One that a socket which could not move still has stays.
func (m *Mover) group(e *wire.Socket) (own []syscall.Conn, old map[uint64][]*sockets.Leaving) {
	stays := make(map[uint64]bool) // by inode
	for _, s := range m.table.Bound(e) {
		if n := inode(s.Handle()); !stays[n] {
			own, stays[n] = append(own, s.Handle()), true
		}
	}
	old = make(map[uint64][]*sockets.Leaving)
	for _, l := range m.table.Leaving() {
		if n := inode(l.Handle()); sameAddress(&l.Entry, e) && !stays[n] {
			old[n] = append(old[n], l)
		}
	}
	return own, old
}

func sameAddress(a, b *wire.Socket) bool {
	return a.Kind == b.Kind && a.Bound == b.Bound && a.Domain == b.Domain
}

// leave empties and closes old.
func (m *Mover) leave(ctx context.Context, own []syscall.Conn, old map[uint64][]*sockets.Leaving) (reuseport.Report, error) {
	var leaving []reuseport.Leaving
	for _, duplicates := range old {
		leaving = append(leaving, reuseport.Leaving{Conn: duplicates[0].Handle(), Close: func() error {
			var errs []error
			for _, l := range duplicates {
				errs = append(errs, m.table.Leave(l))
			}
			return errors.Join(errs...)
		}})
	}
	return reuseport.Move(ctx, own, leaving)
}
