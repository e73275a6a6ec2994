package handoff

import (
	"context"
	"os"
	"os/signal"
	"slices"
)

// signals are the process's, as they come to us.
type signals struct {
	stops, upgrades chan os.Signal // nil until notify
	set             chan struct{}  // closed when they come
	ignored         []os.Signal    // before that
}

// notify begins to have the signals come to us, if it has not begun yet. A thread of
// the runtime's takes its time for each of them, more than a predecessor for its
// answer, so it is done beside the join. New waits for it before it returns.
func (s *signals) notify(cfg *config) {
	if s.stops != nil {
		return
	}
	s.stops, s.upgrades, s.set = make(chan os.Signal, 8), make(chan os.Signal, 8), make(chan struct{})
	go s.take(cfg) // ends by itself; wait waits for it
}

func (s *signals) take(cfg *config) {
	defer close(s.set)
	for _, sig := range slices.Concat(cfg.StopSignals, cfg.UpgradeSignals) {
		if signal.Ignored(sig) {
			s.ignored = append(s.ignored, sig)
		}
	}
	if len(cfg.StopSignals) > 0 { // none would be all
		signal.Notify(s.stops, cfg.StopSignals...)
	}
	if len(cfg.UpgradeSignals) > 0 {
		signal.Notify(s.upgrades, cfg.UpgradeSignals...)
	}
}

// wait returns when the signals come to us.
func (s *signals) wait() { <-s.set }

// putBack has a stop signal come again.
func (s *signals) putBack(sig os.Signal) {
	select {
	case s.stops <- sig:
	default: // others have come meanwhile
	}
}

// giveBack has the signals do what they did before, stop signals that have come, too.
func (s *signals) giveBack() {
	if s.stops == nil {
		return
	}
	s.wait()
	s.stop()
	if len(s.ignored) > 0 { // none would be all
		signal.Ignore(s.ignored...)
	}
	close(s.stops)
	for sig := range s.stops {
		raise(sig)
	}
}

func (s *signals) stop() {
	signal.Stop(s.stops)
	signal.Stop(s.upgrades)
}

// heedSignals does what the process's signals say, until Shutdown.
func (u *Upgrader) heedSignals() {
	defer u.signals.stop()
	told := false
	for {
		select {
		case s := <-u.signals.stops:
			u.stopSignal(s, told)
			told = true
		case s := <-u.signals.upgrades:
			up, err := u.initiate()
			if err != nil {
				u.log.Error("upgrade", "signal", s, "error", err)
				continue
			}
			u.wg.Go(func() { u.run(context.Background(), up) }) // ends with the upgrade
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
