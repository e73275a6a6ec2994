package handoff

import (
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// lingerTick is how often a lingering process tells its successor of itself.
const lingerTick = time.Second

// timerAt returns a channel that yields at a time, or never if that is zero. stop
// lets go of it.
func timerAt(at time.Time) (c <-chan time.Time, stop func()) {
	if at.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(at))
	return t.C, func() { t.Stop() }
}

// watchLinger ends the linger at its limit, or when the successor asks for it,
// and tells the successor how it goes. l is nil where there is none.
func (u *Upgrader) watchLinger(l *session.Lingering) {
	u.mu.Lock()
	end := u.lingerEnd
	u.mu.Unlock()
	limit, stop := timerAt(end)
	defer stop()
	var asked <-chan string
	if l != nil {
		asked = l.Asked()
		u.tellLinger(l, end)
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
				u.tellLinger(l, end)
			}
			u.tellStop("")
		case <-u.closing:
			return
		}
	}
}

// tellLinger says how the linger goes. In mode Drain it also says that our
// listeners are closed, and our datagram sockets unless we hold them: the successor
// drains what it has of them then, and would leave a socket that is open to lose
// what the kernel gives it until it is closed.
func (u *Upgrader) tellLinger(l *session.Lingering, end time.Time) {
	c := u.conns.counts()
	left := time.Duration(-1)
	if !end.IsZero() {
		left = max(0, time.Until(end))
	}
	l.Tell(wire.Linger{Open: c.open, Moved: c.moved, Cut: c.cut, Remaining: left, Holds: u.holds.Load()})
}

// finishReport adds the linger to the account of the upgrade that replaced us.
func (u *Upgrader) finishReport(r *Report) {
	c := u.conns.counts()
	u.mu.Lock()
	defer u.mu.Unlock()
	r.Moved, r.Cut, r.CutBy = c.moved, c.cut, c.cutBy
	r.Durations.Linger = time.Since(r.Started) - r.Durations.Total
	if n := len(u.reports); n > 0 {
		u.reports[n-1] = *r
	}
	fields := []any{"generation", r.Generation, "successor", r.Successor.PID, "took", r.Durations.Linger, "open", r.Open, "moved", r.Moved, "cut", r.Cut}
	if len(r.CutBy) > 0 {
		fields = append(fields, "cut_by", r.CutBy)
	}
	u.log.Info("linger ended", fields...)
}
