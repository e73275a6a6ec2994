package handoff

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

// An obstacle is what has to be gone before mode Inherit can start a successor.
type obstacle struct {
	gone     func() <-chan struct{}
	patience time.Duration
	describe func() string // as a condition: "X has ended"
	advice   string
}

// obstacles returns them in the order in which startInherit waits for them.
func (u *Upgrader) obstacles() []obstacle {
	patience := u.cfg.ReadyTimeout
	if patience < 0 {
		patience = math.MaxInt64
	}
	return []obstacle{
		// tableflip has one child at a time, and does not tell which it is.
		{u.failures.Idle, 2 * u.cfg.hang, u.describeFailed, "try again later, or end it"},
		{u.engine.ParentEnded().Done, patience, u.describeParent, "try again later, or end it"},
		{u.table.Left, patience, u.describeLeaving, "try again later, or upgrade in mode takeover"},
	}
}

// awaitStart waits for the end of an obstacle, before the start of a successor.
func (u *Upgrader) awaitStart(up *upgrade, o obstacle) error {
	gone := o.gone()
	if closedWithin(up.wanted, 0, gone) {
		return nil
	}
	condition := "mode inherit starts a successor only when " + o.describe()
	now := time.Now()
	limit := "without a limit"
	if o.patience < math.MaxInt64 {
		limit = "until " + now.Add(o.patience).Format(time.TimeOnly)
	}
	err := fmt.Errorf("%s; waiting since %s, %s", condition, now.Format(time.TimeOnly), limit)
	u.log.Info("upgrade waits", "reason", err)
	u.emit(Event{Kind: EventWaiting, Report: up.account.copy(), Err: err})
	if closedWithin(up.wanted, o.patience, gone) {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", ErrInProgress, condition, o.advice)
}

// describeFailed describes the last successor, which has not committed.
func (u *Upgrader) describeFailed() string {
	pid := ""
	for _, r := range u.history.copy().Reports { // the last one counts
		if r.Successor.PID > 0 && r.Outcome != OutcomeCommitted {
			pid = fmt.Sprintf(" (pid %d)", r.Successor.PID)
		}
	}
	return "the last one" + pid + " has ended, which was rolled back and still serves what it had accepted"
}

// describeParent describes the process that has started this one.
func (u *Upgrader) describeParent() string {
	all := u.predecessors.describe()
	if len(all) == 0 { // it is plain tableflip, or has said goodbye
		pid := ""
		if ppid := os.Getppid(); ppid > 1 {
			pid = fmt.Sprintf(" (pid %d)", ppid)
		}
		return "the process before this one" + pid + " has ended"
	}
	p := all[len(all)-1]
	text := fmt.Sprintf("the process before this one (pid %d) has ended, which still serves open connections", p.PID)
	switch {
	case p.Open == 0 && p.Remaining == 0: // it has not counted them yet
		return text
	case p.Remaining < 0:
		return fmt.Sprintf("%s (%d open, without a linger limit)", text, p.Open)
	}
	return fmt.Sprintf("%s (%d open, cut in %v)", text, p.Open, p.Remaining.Round(time.Second))
}

// describeLeaving describes the old sockets of mode Drain.
func (u *Upgrader) describeLeaving() string {
	var addrs []string
	for _, l := range u.table.Leaving() {
		addrs = append(addrs, l.Entry.Network+" "+l.Entry.Bound)
	}
	return "the old sockets of mode drain are empty, which tableflip can't pass on: a client has not ended its handshake on " + strings.Join(addrs, ", ")
}
