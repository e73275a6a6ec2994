package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// A store is systemd's descriptor store, as this process knows it. The process that
// owns the sockets has systemd keep them, so that they outlive its death and a
// restart of the service, with all that waits in them; the next one finds them in
// LISTEN_FDS, see activation. While an upgrade is under way the store stays as it
// is; who owns the sockets afterwards brings it up to date.
type store struct {
	notifier *sdnotify.Notifier // nil: there is nobody to keep anything
	size     int                // how many descriptors it takes, as systemd says

	wake chan struct{} // capacity 1: something may have changed
	main chan struct{} // closed when systemd takes this process for the main one
	told sync.Once     // closes main

	// turn is held by whoever tells systemd of descriptors, and guards what
	// follows. Capacity 1.
	turn  chan struct{}
	names map[string]bool // of what systemd has of ours, or may have
	stale bool            // it may not have closed yet what was taken out
}

const (
	// probeName is the name of a descriptor that is in the store for a moment.
	probeName = "baton.probe"
	// storeTimeout bounds how long systemd may take to read what we told it.
	storeTimeout = barrierTimeout
	// maxNames bounds the length of all names. systemd passes them on in one
	// variable, for which execve(2) has 128 KiB (MAX_ARG_STRLEN): with more it
	// could not start the service again.
	maxNames = 96 << 10
)

// newStore looks into the environment.
func newStore(cfg *config, s *systemd) *store {
	st := &store{
		notifier: s.notifier,
		wake:     make(chan struct{}, 1), main: make(chan struct{}), turn: make(chan struct{}, 1),
		names: make(map[string]bool),
	}
	if !s.spawned {
		st.isMain()
	}
	if s.notifier == nil || cfg.NoStore {
		return st
	}
	var err error
	if st.size, err = sdnotify.StoreSize(s.getenv); err != nil {
		cfg.Logger.Warn("systemd's store gets no sockets", "error", err)
	}
	if st.size > 0 && cfg.Mode == Drain {
		cfg.Logger.Warn("systemd's store gets no TCP or UDP sockets in mode drain")
	}
	return st
}

// isMain notes that systemd takes us for the main process, or does so before it
// reads what we tell it from now on.
func (st *store) isMain() { st.told.Do(func() { close(st.main) }) }

// changed has somebody bring the store up to date.
func (st *store) changed() {
	select {
	case st.wake <- struct{}{}:
	default: // it is on its way
	}
}

// rest returns when nobody tells systemd anything.
func (st *store) rest() {
	st.turn <- struct{}{}
	<-st.turn
}

// note notes the names of sockets that a predecessor has had systemd keep. In
// another unit than its own it has no say: what its systemd keeps is not kept for
// us.
func (st *store) note(items []session.Item, ours bool) {
	for i := range items {
		switch e := &items[i].Socket; {
		case !ours:
			e.Keeper = wire.KeeperNone
		case e.Keeper == wire.KeeperStore:
			if name, err := storeName(e); err == nil {
				st.names[name] = true
			}
		}
	}
}

// remove takes out what has a name. The caller has the turn.
func (st *store) remove(name string) error {
	if err := st.notifier.Unstore(name); err != nil {
		return err
	}
	delete(st.names, name)
	st.stale = true
	return nil
}

// clear takes everything out.
func (st *store) clear() error {
	st.turn <- struct{}{}
	defer func() { <-st.turn }()
	for name := range st.names {
		if err := st.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until systemd has closed what was taken out. It reports whether
// there was anything.
func (st *store) settle(ctx context.Context) (bool, error) {
	st.turn <- struct{}{}
	defer func() { <-st.turn }()
	if !st.stale {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := st.notifier.Barrier(ctx); err != nil {
		return false, err
	}
	st.stale = false
	return true, nil
}

// storing is a socket that systemd is to keep under a name.
type storing struct {
	name string
	s    *sockets.Socket
}

// put has systemd keep sockets: all of them, or none and an error that matches
// ErrNotStored. The caller has the turn.
func (st *store) put(all []storing) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	for i, e := range all {
		if i == len(all)-1 {
			// Where there is no room for the last one there may have been none for
			// those before it.
			kept, err := st.notifier.Room(ctx, probeName)
			if err == nil && !kept {
				err = fmt.Errorf("it has no room, or NotifyAccess= keeps it from hearing us: FileDescriptorStoreMax= of the unit must be what FDSTORE says, %d, and at least the number of sockets", st.size)
			}
			if err != nil {
				for _, e := range all[:i] {
					err = errors.Join(err, st.remove(e.name))
				}
				return fmt.Errorf("%w: %w", ErrNotStored, err)
			}
			st.stale = false // Room has waited for it
		}
		fd, ok := e.s.Hold()
		if !ok {
			continue // closed meanwhile
		}
		st.names[e.name] = true
		err := st.notifier.Store(e.name, fd)
		_ = e.s.Release() // an error belongs to whoever closed it
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotStored, err)
		}
	}
	for _, e := range all {
		e.s.Stored = e.name
		e.s.Kept.Store(true)
	}
	return nil
}

// stores reports whether systemd is to keep a socket. It has those of a socket
// unit anyway. What a file means after a crash only the program knows. A member of
// a SO_REUSEPORT group that nobody accepts from would hold its share of the
// connections up, and keep an upgrade in mode Drain from ever emptying it.
func (u *Upgrader) stores(s *sockets.Socket) bool {
	e := &s.Entry
	return e.Kind != wire.KindFile && e.Keeper != wire.KeeperUnit && (u.cfg.Mode != Drain || !sockets.Inet(e))
}

// toStore returns the sockets that systemd is to keep, and why it is not to keep
// all of them.
func (u *Upgrader) toStore() ([]storing, error) {
	var all []storing
	var errs []error
	if u.store.size == 0 {
		return nil, nil
	}
	long := 0
	for _, s := range u.table.All() {
		if !u.stores(s) {
			continue
		}
		name, err := storeName(&s.Entry)
		switch {
		case err != nil:
		case len(all) == u.store.size:
			err = fmt.Errorf("FileDescriptorStoreMax=%d is too small", u.store.size)
		case long+len(name) >= maxNames:
			err = fmt.Errorf("the names of all sockets are longer than %d bytes", maxNames)
		default:
			long += len(name) + 1
			all = append(all, storing{name, s})
			continue
		}
		errs = append(errs, fmt.Errorf("%w: %v: %w", ErrNotStored, sockets.KeyOf(&s.Entry), err))
	}
	return all, errors.Join(errs...)
}

// mayStore reports whether the store is ours to change, by the upgrade up or, if
// it is nil, outside of one.
func (u *Upgrader) mayStore(up *upgrade) bool {
	select {
	case <-u.store.main:
	default:
		return false
	}
	may := false
	u.owner.ask(func(s *state) { may = s.life.Phase == lifecycle.Serving && s.upgrade == up })
	return may
}

// updateStore brings the store up to date, if it is ours to change.
func (u *Upgrader) updateStore(up *upgrade) {
	st := u.store
	if st.notifier == nil {
		return
	}
	st.turn <- struct{}{}
	var put, removed int
	var err error
	if u.mayStore(up) {
		put, removed, err = u.exchange()
	}
	<-st.turn
	switch {
	case err != nil:
		u.log.Warn("not all sockets are in systemd's store: a crash loses what waits in them", "error", err)
	case put+removed > 0:
		u.log.Info("systemd's store is up to date", "put", put, "removed", removed)
	default:
		return
	}
	u.emit(Event{Kind: EventStored, Err: err})
}

// exchange takes out what is not in use any more and puts in what is new. The
// caller has the turn.
func (u *Upgrader) exchange() (put, removed int, err error) {
	st := u.store
	want, err := u.toStore()
	has := func(e storing) bool { return e.s.Kept.Load() && e.s.Stored == e.name }
	old := make(map[string]bool)
	for name := range st.names {
		if !slices.ContainsFunc(want, func(e storing) bool { return e.name == name && has(e) }) {
			old[name] = true
		}
	}
	for _, s := range u.table.All() {
		if old[s.Stored] {
			s.Kept.Store(false)
		}
	}
	// First out, then in: a socket may have another name by now, and systemd takes
	// none twice.
	for name := range old {
		if rerr := st.remove(name); rerr != nil {
			return 0, removed, errors.Join(err, rerr)
		}
		removed++
	}
	if want = slices.DeleteFunc(want, has); len(want) > 0 {
		if perr := st.put(want); perr != nil {
			return 0, removed, errors.Join(err, perr)
		}
	}
	return len(want), removed, err
}

// keepStore brings the store up to date whenever something has changed.
func (u *Upgrader) keepStore() {
	select {
	case <-u.store.main:
	case <-u.closing:
		return
	}
	for {
		select {
		case <-u.store.wake:
			u.updateStore(nil)
		case <-u.closing:
			return
		}
	}
}

// settleStore brings the store up to date before a successor learns what is in it.
func (u *Upgrader) settleStore(up *upgrade) {
	if u.store.notifier == nil {
		return
	}
	t := time.NewTimer(u.cfg.hang)
	defer t.Stop()
	select {
	case <-u.store.main:
	case <-u.done:
	case <-t.C:
		u.log.Warn("the predecessor has not told systemd of this process: its store stays as it is")
	}
	u.updateStore(up)
}

// makeRoom lets go of what keeps k from being bound: a socket that systemd was told
// to close, and did not yet, or one of its store that nobody has asked for, as the
// address was another one before the restart.
func (u *Upgrader) makeRoom(ctx context.Context, k sockets.Key, err error) bool {
	if u.store.notifier == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return false
	}
	for _, s := range u.activation.inTheWay(k) {
		u.log.Warn("a socket of systemd's store is in the way: what waits in it is lost", "was", sockets.KeyOf(s.entry).String(), "is", k.String())
		u.giveUp(s)
		u.store.turn <- struct{}{}
		err := u.store.remove(s.name)
		<-u.store.turn
		if err != nil {
			u.log.Warn("systemd's store", "error", err)
		}
	}
	freed, err := u.store.settle(ctx)
	if err != nil {
		u.log.Warn("systemd's store", "error", err)
	}
	return freed
}

// giveUp closes a socket of the store for good. It stays in the store until that
// is brought up to date.
func (u *Upgrader) giveUp(s activated) {
	s.close()
	if u.table.Uses(s.entry) {
		return // a predecessor has passed on the same one
	}
	s.entry.Bound = s.addr.String()
	if err := sockets.Unlink(s.entry); err != nil {
		u.log.Warn("a socket of systemd's store", "error", err)
	}
}

// collide reports whether two sockets may not be able to have these addresses at one
// time: the same port, or the same path.
func collide(network string, a, b string) bool {
	if strings.HasPrefix(network, "unix") {
		return a == b
	}
	_, p, err := net.SplitHostPort(a)
	_, q, qerr := net.SplitHostPort(b)
	return err == nil && qerr == nil && p == q
}
