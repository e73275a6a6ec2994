package handoff

import (
	"context"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
)

// preparations are the functions that a stop waits for.
type preparations struct {
	mu       sync.Mutex
	all      []func(context.Context)
	rushed   chan struct{} // closed by a second stop signal
	rush     sync.Once     // closes rushed
	prepared chan struct{} // closed when the functions have returned
}

// BeforeStop has a stop wait until f has returned: a stop by a signal, by an operator, or
// by Shutdown. Until then this process accepts on, begins no upgrade, and gives up one
// that is under way. f is for a server whose load balancer needs time to notice the stop.
//
// The Upgrader calls f once, in a goroutine of its own. ctx ends with a second stop signal,
// and when Done is closed, as by Close or by the end of Shutdown's context. f must return
// then, and must not call Shutdown. The Upgrader does not call f when a successor replaces
// this process, and not in a process that does not serve yet.
func (u *Upgrader) BeforeStop(f func(ctx context.Context)) {
	u.before.mu.Lock()
	defer u.before.mu.Unlock()
	u.before.all = append(u.before.all, f)
}

// prepare announces a stop, and waits for the functions of BeforeStop, until ctx ends.
func (u *Upgrader) prepare(ctx context.Context, reason string) {
	u.before.mu.Lock()
	all := u.before.all
	u.before.mu.Unlock()
	if len(all) == 0 || ctx.Err() != nil {
		return
	}
	acts, _ := u.post(event{kind: lifecycle.Announce, reason: reason}) // nothing refuses it
	if acts.has(lifecycle.Prepare) {
		u.log.Info("a stop begins: serving on until the program is prepared", "reason", reason)
		u.systemd.Stopping(reason, stopExtension)
		u.wg.Go(func() { u.runPreparations(all) }) // ends with the functions
	}
	if !u.life().Announced {
		return
	}
	select {
	case <-u.before.prepared:
	case <-u.before.rushed:
	case <-u.done:
	case <-ctx.Done():
	}
}

// runPreparations calls the functions, and keeps systemd waiting.
func (u *Upgrader) runPreparations(all []func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(func() { f(ctx) }) // ends with ctx, by the contract of BeforeStop
	}
	go func() { // ends with them
		running.Wait()
		close(u.before.prepared)
	}()
	tick := time.NewTicker(lingerTick)
	defer tick.Stop()
	for {
		select {
		case <-u.before.prepared:
			return
		case <-u.before.rushed:
		case <-u.done:
		case <-tick.C:
			u.systemd.Extend(stopExtension)
			continue
		}
		cancel()
		<-u.before.prepared
		return
	}
}
