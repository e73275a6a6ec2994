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
	for {
		select {
		case s := <-ch:
			if slices.Contains(u.cfg.StopSignals, s) {
				u.stopSignal(s)
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

// stopSignal begins a graceful end, or hurries the one that is under way.
func (u *Upgrader) stopSignal(s os.Signal) {
	select {
	case <-u.done:
		u.expire("signal " + s.String())
	default:
		u.stop("signal " + s.String())
	}
}
