package handoff

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
)

// notify has the process's signals come to us. It is called before anybody can
// know that the process is there to be signalled.
func (u *Upgrader) notify() chan os.Signal {
	ch := make(chan os.Signal, 8)
	if all := slices.Concat(u.cfg.UpgradeSignals, u.cfg.StopSignals); len(all) > 0 {
		signal.Notify(ch, all...)
	}
	return ch
}

// signals does what the process's signals say, until Shutdown.
func (u *Upgrader) signals(ch chan os.Signal) {
	defer signal.Stop(ch)
	told := false
	for {
		select {
		case s := <-ch:
			if slices.Contains(u.cfg.StopSignals, s) {
				u.stopSignal(s, told)
				told = true
				continue
			}
			u.wg.Go(func() { // ends with the upgrade
				err := u.Upgrade(context.Background())
				if err != nil && !errors.As(err, new(*UpgradeError)) { // those have been logged
					u.log.Error("upgrade", "signal", s, "error", err)
				}
			})
		case <-u.closing:
			return
		}
	}
}

// stopSignal begins a graceful end. A first signal hurries nobody: who lingers is
// told as well when the whole of a service is (systemd.kill(5), KillMode=), and
// does what it asks for. A second one cuts what is open.
func (u *Upgrader) stopSignal(s os.Signal, again bool) {
	reason := "signal " + s.String()
	select {
	case <-u.done:
		if again {
			u.hurry.Do(func() { close(u.hurried) })
			u.expire(reason)
			return
		}
		u.log.Info("ending already", "reason", reason, "open", u.conns.open())
	default:
		u.stop(reason)
	}
}
