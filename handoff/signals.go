package handoff

import (
	"context"
	"fmt"
	"os"
)

// handleSignals carries out the signals of the process, until Shutdown.
func (u *Upgrader) handleSignals() {
	defer u.signals.End()
	again := false
	for {
		select {
		case s := <-u.signals.Stops:
			u.stopSignal(s, again)
			again = true
		case s := <-u.signals.Upgrades:
			up, err := u.initiate()
			if err != nil {
				u.log.Error("a signal started no upgrade", "signal", s, "error", err)
				u.notice(fmt.Sprintf("signal %v started no upgrade: %v", s, err))
				continue
			}
			u.wg.Go(func() { u.run(context.Background(), up) }) // ends with the upgrade
		case <-u.closing:
			return
		}
	}
}

// stopSignal begins a graceful end. The first signal has no effect on a process that
// lingers: systemd sends it to all processes of a service (systemd.kill(5), KillMode=).
// A second one ends the wait for the functions of BeforeStop, or closes open connections.
func (u *Upgrader) stopSignal(s os.Signal, again bool) {
	reason := "signal " + s.String()
	select {
	case <-u.done:
		if again {
			u.hurry.Do(func() { close(u.hurried) })
			u.expire(reason)
			return
		}
		u.log.Info("ending already", "reason", reason, "open", u.conns.Open())
	default:
		if again {
			u.before.rush.Do(func() { close(u.before.rushed) })
		}
		u.beginStop(reason)
	}
}
