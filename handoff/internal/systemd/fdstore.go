package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

const (
	// probeName is the name of a descriptor that is stored for a moment.
	probeName = "baton.probe"
	// replyTimeout bounds how long systemd may take to read what it was sent.
	replyTimeout = 5 * time.Second
	// maxNames bounds the length of all names. systemd passes them on in one
	// variable, for which execve(2) has 128 KiB (MAX_ARG_STRLEN): with more it
	// could not start the service again.
	maxNames = 96 << 10
)

// fdstore is systemd's descriptor store as this process knows it. It belongs to the
// goroutine of the queue.
type fdstore struct {
	notifier *sdnotify.Notifier
	size     int             // how many descriptors systemd keeps
	drain    bool            // in mode Drain
	names    map[string]bool // under which systemd has sockets, or may have some
}

// remove has systemd close what it has under a name.
func (st *fdstore) remove(name string) error {
	err := st.notifier.Unstore(name)
	if err == nil {
		delete(st.names, name)
	}
	return err
}

// clear removes everything.
func (st *fdstore) clear() error {
	for name := range st.names {
		if err := st.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// update has the store hold what is in use.
func (st *fdstore) update(all []*sockets.Socket) (added, removed int, err error) {
	want, err := st.choose(all)
	// Removals come first: a socket may have another name by now, and systemd
	// stores none twice.
	for name := range st.names {
		if s := want[name]; s != nil && s.Stored() == name {
			delete(want, name)
			continue
		}
		if rerr := st.remove(name); rerr != nil {
			return 0, removed, errors.Join(err, rerr)
		}
		removed++
	}
	for _, s := range all {
		if !st.names[s.Stored()] {
			s.SetStored("")
		}
	}
	if aerr := st.add(want); aerr != nil {
		return 0, removed, errors.Join(err, aerr)
	}
	return len(want), removed, err
}

// choose returns the sockets that belong into the store, by name, and why others do
// not fit.
//
// A socket unit keeps its sockets itself. Only the program knows what a file means
// after a crash. A stored member of a SO_REUSEPORT group would go on to get its
// share of the connections when no process accepts from it, and could not leave the
// group in mode Drain.
func (st *fdstore) choose(all []*sockets.Socket) (map[string]*sockets.Socket, error) {
	want := make(map[string]*sockets.Socket)
	var errs []error
	length := 0
	for _, s := range all {
		e := &s.Entry
		if st.size == 0 || e.Kind == wire.KindFile || e.Keeper == wire.KeeperUnit || st.drain && sockets.Inet(e) {
			continue
		}
		name := NameOf(e)
		var err error
		switch {
		case !sdnotify.ValidName(name):
			err = fmt.Errorf("%w: its name in the store has %d bytes: use a shorter address or name", failure.Unsupported, len(name))
		case len(want) == st.size:
			err = fmt.Errorf("FileDescriptorStoreMax=%d is too small", st.size)
		case length+len(name) >= maxNames:
			err = fmt.Errorf("the names of the sockets have more than %d bytes in all", maxNames)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %v: %w", failure.NotStored, sockets.KeyOf(e), err))
			continue
		}
		length += len(name) + 1
		want[name] = s
	}
	return want, errors.Join(errs...)
}

// add stores sockets: all of them, or none and an error that matches
// [failure.NotStored].
func (st *fdstore) add(all map[string]*sockets.Socket) error {
	left := len(all)
	for name, s := range all {
		// systemd does not say what it has stored. Where there is room for one more
		// before the last one is sent, there was room for all.
		if left--; left == 0 {
			if err := st.probe(); err != nil {
				for name := range all {
					if st.names[name] {
						err = errors.Join(err, st.remove(name))
					}
				}
				return fmt.Errorf("%w: %w", failure.NotStored, err)
			}
		}
		fd, ok := s.Hold()
		if !ok {
			continue // closed meanwhile
		}
		st.names[name] = true
		err := st.notifier.Store(name, fd)
		_ = s.Release() // an error belongs to the one that closed it
		if err != nil {
			return fmt.Errorf("%w: %w", failure.NotStored, err)
		}
	}
	for name, s := range all {
		s.SetStored(name)
	}
	return nil
}

// probe returns an error if the store has no room.
func (st *fdstore) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), replyTimeout)
	defer cancel()
	room, err := st.notifier.Room(ctx, probeName)
	if err == nil && !room {
		err = fmt.Errorf("the store is full, or NotifyAccess= makes systemd ignore the messages of this process: set FileDescriptorStoreMax= of the unit to the value of FDSTORE, %d, and to at least the number of sockets", st.size)
	}
	return err
}

// barrier returns when systemd has read all messages, and closed what was removed.
func (st *fdstore) barrier() error {
	ctx, cancel := context.WithTimeout(context.Background(), replyTimeout)
	defer cancel()
	return st.notifier.Barrier(ctx)
}
