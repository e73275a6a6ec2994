package handoff

import (
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// lingerTick is the interval in which a lingering process reports to its successor.
const lingerTick = time.Second

// stopExtension is the time that a stopping process asks systemd for with each
// lingerTick.
const stopExtension = 10 * lingerTick

// timerAt returns a channel that yields at a time, or never if that is zero. stop
// releases the timer.
func timerAt(at time.Time) (c <-chan time.Time, stop func()) {
	if at.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(at))
	return t.C, func() { t.Stop() }
}

// watchLinger ends the linger at its limit, or when the successor asks for it, and
// reports to the successor. l is nil if there is none.
func (u *Upgrader) watchLinger(l *session.Lingering) {
	limit, stop := timerAt(u.lingerEnd())
	defer stop()
	var asked <-chan string
	if l != nil {
		asked = l.Asked()
		u.tellLinger(l)
	}
	tick := time.NewTicker(lingerTick)
	defer tick.Stop()
	for {
		select {
		case <-limit:
			u.expire("linger limit")
			limit = nil
		case reason := <-asked:
			u.expire("the successor asked for it: " + reason)
			asked = nil
		case <-tick.C:
			if l != nil {
				u.tellLinger(l)
			}
			u.systemd.Extend(stopExtension)
		case <-u.closing:
			return
		}
	}
}

// tellLinger reports the linger to the successor.
func (u *Upgrader) tellLinger(l *session.Lingering) {
	c := u.conns.Counts()
	l.Tell(wire.Linger{Open: c.Open, Moved: c.Moved, Cut: c.Cut, Remaining: u.remaining()})
}

// lingerEnd returns when the linger is over; zero if it has no limit, or has not begun.
func (u *Upgrader) lingerEnd() (end time.Time) {
	u.owner.ask(func(s *state) { end = s.lingerEnd })
	return end
}

// remaining returns the time until lingerEnd, negative if that is zero.
func (u *Upgrader) remaining() time.Duration {
	end := u.lingerEnd()
	if end.IsZero() {
		return -1
	}
	return max(0, time.Until(end))
}

// finishReport adds the linger to the account of the upgrade that replaced this
// process, and returns it; nil if none has.
func (u *Upgrader) finishReport() *Report {
	committed := u.replacement()
	if committed == nil {
		return nil
	}
	r := committed.lingered(u.conns.Counts())
	u.history.complete(r)
	fields := []any{"generation", r.Generation, "successor", r.Successor.PID, "took", r.Durations.Linger, "open", r.Open, "moved", r.Moved, "cut", r.Cut}
	if len(r.CutBy) > 0 {
		fields = append(fields, "cut_by", r.CutBy)
	}
	u.log.Info("linger ended", fields...)
	return &r
}

// sendHistory sends the reports of the last upgrades to the successor.
func (u *Upgrader) sendHistory(l *session.Lingering) {
	m, err := u.history.account()
	if err != nil {
		u.log.Warn("did not send the last reports to the successor", "error", err)
		return
	}
	l.Account(m)
}

// receiveHistory takes over the predecessor's account, which it sends when systemd
// knows this process for the main one.
func (u *Upgrader) receiveHistory(m wire.Account) {
	u.systemd.Introduced() // before it has sent this
	if err := u.history.receive(m); err != nil {
		u.log.Debug("can't read the last reports of the predecessor", "error", err)
	}
}
