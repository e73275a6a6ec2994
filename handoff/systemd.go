package handoff

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

const (
	// notifyTimeout bounds how long systemd may leave its socket full.
	notifyTimeout = 2 * time.Second
	// barrierTimeout bounds how long a process that was replaced waits for
	// systemd to hear of its successor.
	barrierTimeout = 5 * time.Second
	// stopExtension is what a stopping process asks for with each lingerTick.
	stopExtension = 10 * lingerTick
)

// systemd is what the service manager is told (sd_notify(3)). The main process
// tells it, so that NotifyAccess=main is enough; only where that has died does
// its successor introduce itself, which takes NotifyAccess=all.
type systemd struct {
	notifier *sdnotify.Notifier // nil: nobody wants to hear
	watchdog time.Duration      // 0: likewise
	getenv   func(string) string
	spawned  bool        // by a predecessor, and so in its unit
	ours     atomic.Bool // the upgrade under way is to a process of our unit

	late sdnotify.Backlog
}

// newSystemd looks into the environment. spawned says that a predecessor has
// started this process.
func newSystemd(cfg *config, spawned bool) *systemd {
	s := &systemd{spawned: spawned, getenv: os.Getenv}
	if cfg.NoSystemd {
		return s
	}
	var err error
	if s.notifier, err = sdnotify.New(os.Getenv, notifyTimeout); err != nil {
		cfg.Logger.Warn("systemd will hear nothing", "error", err)
	}
	if s.watchdog, err = sdnotify.WatchdogInterval(os.Getenv, os.Getpid(), spawned); err != nil {
		cfg.Logger.Warn("systemd's watchdog will hear nothing", "error", err)
	}
	if s.notifier == nil {
		s.watchdog = 0
	}
	return s
}

// tellSystemd tells systemd what an event means to it.
func (u *Upgrader) tellSystemd(e Event) {
	if u.systemd.notifier == nil {
		return
	}
	switch e.Kind {
	case EventOwner:
		switch {
		case !u.systemd.spawned:
			if u.successor == nil {
				u.updateStore(nil) // who is told Ready may count on it
			}
			u.sendSystemd(sdnotify.Ready, u.serving())
		case u.successor == nil: // the predecessor speaks tableflip alone
			u.introduce()
		}
		u.store.changed()
	case EventUpgradeStarted:
		// A successor that somebody else has started is of another unit.
		ours := e.Report.Successor.PID == 0
		u.systemd.ours.Store(ours)
		if !ours {
			return
		}
		m := append(sdnotify.Reloading(sdnotify.Monotonic()), sdnotify.Status(fmt.Sprintf("generation %d: upgrade under way", e.Generation)))
		if u.cfg.ReadyTimeout > 0 {
			m = append(m, sdnotify.ExtendTimeout(u.cfg.ReadyTimeout+max(u.cfg.Probation, 0)+4*u.cfg.hang))
		}
		u.sendSystemd(m...)
	case EventUpgradeFailed:
		u.sendSystemd(sdnotify.Ready, u.serving()+"; upgrade failed: "+e.Report.Reason)
		u.store.changed() // it may have meanwhile
	case EventCommitted:
		u.replaced(e.Report)
	}
}

// replaced tells systemd who the main process is from now on, or that we end.
func (u *Upgrader) replaced(r *Report) {
	ours := u.systemd.ours.Load()
	if !ours {
		u.sendSystemd(sdnotify.Stopping, sdnotify.Status(fmt.Sprintf("replaced by pid %d", r.Successor.PID)))
		// What is in the store of its unit is the successor's affair.
		if err := u.store.clear(); err != nil {
			u.log.Warn("systemd's store", "error", err)
		}
		u.awaitSystemd()
		return
	}
	pid := r.Successor.PID
	m := []string{sdnotify.MainPID(pid)}
	if id := sdnotify.PIDFDID(pid); id != 0 {
		m = append(m, sdnotify.MainPIDFDID(id))
	}
	u.sendSystemd(append(m, sdnotify.Ready, sdnotify.Watchdog, servingStatus(r.Generation, r.Successor.Version))...)
	u.awaitSystemd()
}

// awaitSystemd keeps this process until systemd has read what it was told: it would
// take our end for the service's.
func (u *Upgrader) awaitSystemd() {
	u.wg.Go(func() { // ends with systemd's answer, or in time
		told := u.systemd.late.Told()
		select {
		case <-told:
		case <-u.closing: // which may come first where nothing waits to be told
			select {
			case <-told:
			default:
				return
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), barrierTimeout)
		defer cancel()
		if err := u.systemd.notifier.Barrier(ctx); err != nil {
			u.log.Warn("systemd", "error", err)
		}
	})
}

// introduce tells systemd that this process is the main one, where no
// predecessor could.
func (u *Upgrader) introduce() {
	if u.systemd.notifier == nil || !u.systemd.spawned {
		return
	}
	u.sendSystemd(sdnotify.MainPID(os.Getpid()), sdnotify.Ready, sdnotify.Watchdog, u.serving())
	u.systemd.late.Then(u.store.isMain)
}

// tellStop tells systemd that this process ends without a successor, and that
// its open connections need their time.
func (u *Upgrader) tellStop(reason string) {
	life := u.life()
	mine := life.Phase == lifecycle.Stopping && !life.Joined
	switch {
	case !mine || u.systemd.notifier == nil:
	case reason != "":
		u.sendSystemd(sdnotify.Stopping, sdnotify.Status("stopping: "+reason), sdnotify.ExtendTimeout(stopExtension))
	default:
		u.pulseSystemd(sdnotify.ExtendTimeout(stopExtension))
	}
}

func (u *Upgrader) serving() string { return servingStatus(u.Generation(), u.cfg.Version) }

func servingStatus(generation uint64, version string) string {
	text := fmt.Sprintf("generation %d", generation)
	if version != "" {
		text += ", version " + version
	}
	return sdnotify.Status(text)
}

// feedWatchdog tells systemd that this process is alive, while it is the one
// that serves.
func (u *Upgrader) feedWatchdog() {
	tick := time.NewTicker(u.systemd.watchdog / 2) // as sd_watchdog_enabled(3) advises
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if u.life().Phase == lifecycle.Serving {
				u.pulseSystemd(sdnotify.Watchdog)
			}
		case <-u.closing:
			return
		}
	}
}
