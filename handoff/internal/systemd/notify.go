package systemd

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// Owner says that this process is the one that serves: it keeps the store up to
// date, and closes the sockets of systemd's that the program has not asked for. The
// process that systemd has started is ready when its sockets are stored; one that a
// predecessor has started is introduced by that.
func (m *Manager) Owner(generation uint64) {
	m.phase.CompareAndSwap(starting, serving) // it may have been stopped
	m.Changed()
	if !m.cfg.Spawned {
		m.queue.Send(sdnotify.Message{sdnotify.Ready, status(generation, m.cfg.Version)})
	}
	m.closeUnused()
}

// Introduced says that the predecessor has named this process to systemd as the main
// one.
func (m *Manager) Introduced() { m.start() }

// Introduce names this process to systemd as the main one, unless the predecessor,
// which is gone, has.
func (m *Manager) Introduce(generation uint64) {
	m.start(sdnotify.Message{sdnotify.MainPID(os.Getpid()), sdnotify.Ready, sdnotify.Watchdog, status(generation, m.cfg.Version)})
}

// start begins to send messages, the first ones first.
func (m *Manager) start(first ...sdnotify.Message) {
	if !m.main.Swap(true) {
		m.queue.Start(first...)
		m.Changed()
	}
}

// UpgradeStarted says that this process starts a successor, and how long that may
// take; the longest Duration is no limit. It returns when the store is up to date, so
// that the successor learns what is in it; or when ctx ends, or after a time. The store
// stays as it is from then on.
func (m *Manager) UpgradeStarted(ctx context.Context, generation uint64, limit time.Duration) {
	msg := append(sdnotify.Reloading(sdnotify.Monotonic()), sdnotify.Status(fmt.Sprintf("generation %d: upgrade under way", generation)))
	if limit < math.MaxInt64 {
		msg = append(msg, sdnotify.ExtendTimeout(limit))
	}
	m.queue.Send(msg)
	m.Changed()
	updated := make(chan struct{})
	m.queue.Do(func() {
		m.TakeoverStarted()
		close(updated)
	})
	t := time.NewTimer(updateTimeout)
	defer t.Stop()
	select {
	case <-updated:
	case <-ctx.Done():
	case <-t.C:
		m.cfg.Logger.Warn("systemd does not read messages: its descriptor store is not updated")
	}
	m.TakeoverStarted()
}

// TakeoverStarted says that an upgrade to a process of another unit begins: the store
// stays as it is.
func (m *Manager) TakeoverStarted() { m.phase.CompareAndSwap(serving, upgrading) }

// UpgradeFailed says that this process serves on, and why.
func (m *Manager) UpgradeFailed(generation uint64, reason string) {
	if m.phase.Load() > upgrading {
		return // it ends
	}
	m.queue.Do(func() { m.phase.CompareAndSwap(upgrading, serving) })
	m.queue.Send(sdnotify.Message{sdnotify.Ready, status(generation, m.cfg.Version, "; upgrade failed: ", reason)})
	m.Changed()
}

// A Successor is the process that serves from now on.
type Successor struct {
	PID        int
	Generation uint64
	Version    string
	OtherUnit  bool // this process has not started it
}

// Replaced says that a successor serves. Where that is of another unit, the service of
// this one ends for systemd, and the sockets leave its store.
func (m *Manager) Replaced(by Successor) {
	if by.OtherUnit {
		m.phase.Store(takenOver)
		m.queue.Send(sdnotify.Message{sdnotify.Stopping, sdnotify.Status(fmt.Sprintf("replaced by pid %d", by.PID))})
		m.queue.Do(func() { m.warn(m.store.clear()) })
	} else {
		m.phase.Store(replaced)
		msg := sdnotify.Message{sdnotify.MainPID(by.PID)}
		if id := sdnotify.PIDFDID(by.PID); id != 0 {
			msg = append(msg, sdnotify.MainPIDFDID(id))
		}
		m.queue.Send(append(msg, sdnotify.Ready, sdnotify.Watchdog, status(by.Generation, by.Version)))
	}
}

// Then calls f when the messages before are in systemd's socket: the successor may send
// its own from then on. [Manager.Close] waits until systemd has read them.
func (m *Manager) Then(f func()) {
	m.queue.Do(f)
	m.queue.Do(func() { m.warn(m.store.barrier()) })
}

// Stopping says that this process ends without a successor, and asks for the time d,
// as each call of [Manager.Extend] does.
func (m *Manager) Stopping(reason string, d time.Duration) {
	if ph := m.phase.Load(); ph == replaced || ph == takenOver {
		return // systemd would stop the successor
	}
	m.phase.Store(stopping)
	m.queue.Send(sdnotify.Message{sdnotify.Stopping, sdnotify.Status("stopping: " + reason), sdnotify.ExtendTimeout(d)})
}

// Extend asks for the time d from now on, if the service ends with this process for
// systemd.
func (m *Manager) Extend(d time.Duration) {
	if ph := m.phase.Load(); ph == stopping || ph == takenOver {
		m.queue.Pulse(sdnotify.Message{sdnotify.ExtendTimeout(d)})
	}
}

// feedWatchdog sends systemd a sign of life in each period while this process serves,
// and is the main one.
func (m *Manager) feedWatchdog(period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if ph := m.phase.Load(); m.main.Load() && (ph == serving || ph == upgrading) {
				m.queue.Pulse(sdnotify.Message{sdnotify.Watchdog})
			}
		case <-m.closing:
			return
		}
	}
}

// status describes the process that serves.
func status(generation uint64, version string, more ...string) string {
	text := fmt.Sprintf("generation %d", generation)
	if version != "" {
		text += ", version " + version
	}
	return sdnotify.Status(text + strings.Join(more, ""))
}
