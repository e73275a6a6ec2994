package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

const (
	// sendTimeout bounds how long systemd may leave its socket full before the log
	// says so.
	sendTimeout = 2 * time.Second
	// replacedTimeout is how long a process that was replaced stays for a systemd
	// that reads nothing: systemd would take its end for that of the service, and
	// kill the successor.
	replacedTimeout = time.Minute
	// updateTimeout bounds how long an upgrade waits for an update of the store.
	updateTimeout = replyTimeout
)

// Config has what a Manager needs to know of its process.
type Config struct {
	Disabled bool // no sockets are taken from systemd, and no messages sent
	NoStore  bool // no sockets are stored
	Spawned  bool // a predecessor has started this process, in its own unit
	Drain    bool // in mode Drain
	Inherit  bool // in mode Inherit
	Version  string

	Table  *sockets.Table
	Logger hclog.Logger
	// Updated is called when the store was changed, or err says why it was not.
	Updated func(err error)
}

// A Manager is systemd, as this process deals with it. Where no systemd has started
// the service it does nothing. Its methods may be called from several goroutines.
type Manager struct {
	cfg   Config
	queue *sdnotify.Queue // nil without NOTIFY_SOCKET
	store *fdstore

	main    atomic.Bool // systemd takes this process for the main one before it reads its next message
	phase   atomic.Int32
	closing chan struct{} // closed by Close
	wg      sync.WaitGroup

	mu     sync.Mutex
	passed []sockets.Arrived // by systemd; the program has not asked for them yet
}

// The phases of a process. The store changes only while it serves.
const (
	starting  int32 = iota
	serving         // this process is the one that serves
	upgrading       // and an upgrade is under way
	stopping        // it ends without a successor
	replaced        // a successor in its unit serves
	takenOver       // a process of another unit serves
)

// New reads the environment, and takes the sockets out of it that systemd has passed
// on. It returns an error where one of a socket unit's can't be handed on.
//
// The process that systemd takes for the main one sends the messages, so that
// NotifyAccess=main is enough. A process that a predecessor has started sends none
// before its predecessor has introduced it ([Manager.Introduced]), or has died
// ([Manager.Introduce], which takes NotifyAccess=all).
func New(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg, closing: make(chan struct{}), store: &fdstore{drain: cfg.Drain, names: make(map[string]bool)}}
	if cfg.Disabled {
		return m, nil
	}
	if err := m.listenFDs(); err != nil {
		m.closePassed()
		return nil, fmt.Errorf("handoff: sockets of systemd: %w", err)
	}
	notifier, err := sdnotify.New(os.Getenv, sendTimeout)
	if err != nil {
		cfg.Logger.Warn("can't send messages to systemd", "error", err)
	}
	if notifier == nil {
		return m, nil
	}
	m.queue = sdnotify.NewQueue(notifier, func(_ sdnotify.Message, err error) { m.warn(err) })
	m.store.notifier = notifier
	if !cfg.NoStore {
		m.store.size, err = sdnotify.StoreSize(os.Getenv)
		m.warn(err)
		if m.store.size > 0 && cfg.Drain {
			cfg.Logger.Warn("in mode drain, TCP and UDP sockets are not put into systemd's descriptor store")
		}
	}
	watchdog, err := sdnotify.WatchdogInterval(os.Getenv, os.Getpid(), cfg.Spawned)
	m.warn(err)
	if watchdog > 0 {
		m.wg.Go(func() { m.feedWatchdog(watchdog / 2) }) // ends with closing; sd_watchdog_enabled(3) advises the half
	}
	if !cfg.Spawned {
		m.Introduced()
	}
	if cfg.Drain { // this process makes sockets of its own, on the same addresses
		m.free(context.Background(), func(e *wire.Socket) bool { return stored(e) && sockets.Inet(e) })
	}
	return m, nil
}

// Close sends what is left, and ends the Manager. It waits for a systemd that reads
// nothing: for some seconds, or about a minute where this process was replaced.
func (m *Manager) Close() {
	close(m.closing)
	after := time.Duration(0)
	if m.phase.Load() >= replaced {
		after = replacedTimeout
	}
	if unsent := m.queue.Close(after); unsent != nil {
		m.cfg.Logger.Error("systemd has not read a message", "message", unsent)
	}
	m.wg.Wait()
	m.closePassed()
}

// Received takes note of the entry of a socket that a predecessor passes on. What
// another unit's store has is not stored for this process.
func (m *Manager) Received(e *wire.Socket) {
	if !m.cfg.Spawned {
		e.Keeper = wire.KeeperNone
	}
	if name := StoredAs(e); name != "" {
		m.store.names[name] = true
	}
}

// Changed has the store brought up to date soon: the program has opened or closed a
// socket.
func (m *Manager) Changed() {
	if m.queue != nil && m.main.Load() {
		m.queue.Do(m.update)
	}
}

// update brings the store up to date, in the queue's goroutine.
func (m *Manager) update() {
	all := m.cfg.Table.All()
	if m.phase.Load() != serving || m.cfg.Table.Ending.Load() {
		return // the program may have closed sockets because this process ends
	}
	added, removed, err := m.store.update(all)
	switch {
	case err != nil:
		m.cfg.Logger.Warn("not all sockets are in systemd's descriptor store: a crash loses the connections that wait in the others", "error", err)
	case added+removed > 0:
		m.cfg.Logger.Info("updated systemd's descriptor store", "added", added, "removed", removed)
	default:
		return
	}
	m.cfg.Updated(err)
}

// MakeRoom lets go of what may keep k from being bound, which has failed with err: a
// socket that systemd was to close and has not closed yet, or a stored one that the
// program has not asked for, as the address was another one before the restart. It
// reports whether another attempt may succeed.
func (m *Manager) MakeRoom(ctx context.Context, k sockets.Key, err error) bool {
	bound := sockets.PlaceOf(k.Network, k.Address).Bound
	return bound != "" && errors.Is(err, syscall.EADDRINUSE) &&
		m.free(ctx, func(e *wire.Socket) bool { return stored(e) && collides(e, k.Network, bound) })
}

// free closes the stored sockets that match, and waits until systemd has closed what
// was removed from the store. It reports whether it has.
func (m *Manager) free(ctx context.Context, match func(*wire.Socket) bool) bool {
	if m.queue == nil || !m.main.Load() {
		return false
	}
	for a, ok := m.take(match); ok; a, ok = m.take(match) {
		m.cfg.Logger.Warn("closed a socket from systemd's descriptor store, with the connections that wait in it: its address was needed", "socket", sockets.KeyOf(&a.Entry).String(), "address", a.Entry.Bound)
		m.discard(a)
		m.queue.Do(func() { m.warn(m.store.remove(StoredAs(&a.Entry))) })
	}
	freed := make(chan error, 1)
	m.queue.Do(func() { freed <- m.store.barrier() })
	select {
	case err := <-freed:
		m.warn(err)
		return err == nil
	case <-ctx.Done():
	case <-m.closing:
	}
	return false
}

func (m *Manager) warn(err error) {
	if err != nil {
		m.cfg.Logger.Warn("systemd", "error", err)
	}
}
