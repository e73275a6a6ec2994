package handoff

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// operations are what a process keeps for those who ask at its control socket.
type operations struct {
	started time.Time
	watches watches

	learned chan struct{} // closed when history is what it will be
	learn   sync.Once     // closes learned

	mu       sync.Mutex
	step     *Event   // the last one of the upgrade that is under way, or of the last one
	reports  []Report // of this process
	history  []Report // of the predecessors
	totals   Totals   // of the line, without what became of this process' connections
	requests int      // that are being answered
}

func newOperations() *operations {
	return &operations{started: time.Now(), watches: watches{all: make(map[*watch]struct{})}, learned: make(chan struct{})}
}

// knows reports whether history and totals are what they will be.
func (o *operations) knows(successor bool) bool {
	if !successor {
		return true
	}
	select {
	case <-o.learned:
		return true
	default:
		return false
	}
}

func (o *operations) endLearning() { o.learn.Do(func() { close(o.learned) }) }

// historyPatience bounds how long a new owner waits for what its predecessor
// says right behind Commit, when it is asked.
const historyPatience = 500 * time.Millisecond

// awaitHistory waits until the history is there: whoever has waited for a commit
// asks at once.
func (u *Upgrader) awaitHistory() {
	if u.successor == nil {
		return
	}
	t := time.NewTimer(historyPatience)
	defer t.Stop()
	select {
	case <-u.ops.learned:
	case <-t.C:
		u.ops.endLearning() // it says nothing, or is gone
	case <-u.closing:
	}
}

// note keeps an event for those who ask later, and tells those who watch.
func (u *Upgrader) note(e Event) {
	if e.Report != nil {
		u.ops.mu.Lock()
		u.ops.step = &e
		u.ops.mu.Unlock()
	}
	u.ops.watches.tell(e)
}

// tellHistory tells our successor how the last upgrades went.
func (u *Upgrader) tellHistory(l *session.Lingering) {
	all, totals := u.ops.reported()
	for ; len(all) > 0; all = all[1:] {
		b, err := json.Marshal(all)
		if err == nil && len(b) <= wire.MaxBody {
			l.Account(totals.account(b))
			return
		}
	}
}

// learnHistory hears how the last upgrades of our predecessors went.
func (u *Upgrader) learnHistory(m wire.Account) {
	defer u.ops.endLearning()
	u.systemd.Introduced() // before it has sent this
	u.ops.mu.Lock()
	u.ops.totals.learn(m)
	u.ops.mu.Unlock()
	var all []Report
	if err := json.Unmarshal(m.Body, &all); err != nil {
		u.log.Debug("account of the last upgrades", "error", err) // a mode that we don't know, say
		return
	}
	u.ops.mu.Lock()
	defer u.ops.mu.Unlock()
	u.ops.history = all[max(0, len(all)-maxReports):]
}

// finishHistory adds a predecessor's last word to its account.
func (u *Upgrader) finishHistory(generation uint64, bye wire.Bye) {
	u.ops.mu.Lock()
	defer u.ops.mu.Unlock()
	u.ops.totals.Moved += bye.Moved
	u.ops.totals.Cut += bye.Cut
	for i := range u.ops.history {
		r := &u.ops.history[i]
		if r.Generation == generation+1 && r.Outcome == OutcomeCommitted {
			r.Moved, r.Cut = bye.Moved, bye.Cut
			r.Durations.Linger = time.Since(r.Started) - r.Durations.Total
		}
	}
}

// record keeps the account of an upgrade of this process.
func (o *operations) record(r Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.totals.upgraded(r.Outcome)
	o.reports = append(o.reports, r)
	o.reports = o.reports[max(0, len(o.reports)-maxReports):]
}

// complete replaces the last account by r, which has the linger as well.
func (o *operations) complete(r Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.reports); n > 0 {
		o.reports[n-1] = r
	}
}

// own returns the accounts of this process.
func (o *operations) own() []Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.reports)
}

// reported returns the last accounts, of predecessors too, oldest first, and the
// totals.
func (o *operations) reported() ([]Report, Totals) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := slices.Concat([]Report{}, o.history, o.reports)
	return all[max(0, len(all)-maxReports):], o.totals
}

// status returns the last accounts, the totals (nil while they are not known), and the
// last event of the upgrade that is under way, if one is.
func (o *operations) status(successor, upgrading bool, c connCounts) (all []Report, t *Totals, step *Event) {
	all, totals := o.reported()
	if o.knows(successor) {
		totals.Moved += c.moved
		totals.Cut += c.cut
		t = &totals
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if upgrading {
		step = o.step
	}
	return all, t, step
}

// maxWatched is how many events wait for one that watches, and how many are kept
// for those who come later.
const (
	maxWatched = 1024
	maxKept    = 64
)

// watches are those who watch the events.
type watches struct {
	mu   sync.Mutex
	all  map[*watch]struct{}
	kept []Event
}

// watch is one who watches.
type watch struct {
	of   *watches
	wake chan struct{} // capacity 1

	queue []Event // of.mu guards it
	lost  bool    // it was too slow; likewise
}

func (w *watches) tell(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, e)
	w.kept = w.kept[max(0, len(w.kept)-maxKept):]
	for one := range w.all {
		if len(one.queue) == maxWatched {
			one.lost = true
			continue
		}
		one.queue = append(one.queue, e)
		select {
		case one.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// begin begins to watch; past has it hear of the last events first.
func (w *watches) begin(past bool) *watch {
	one := &watch{of: w, wake: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[one] = struct{}{}
	if past {
		one.queue = append(one.queue, w.kept...)
		one.wake <- struct{}{}
	}
	return one
}

func (w *watch) end() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.all, w)
}

// take returns what has happened since the last call, and whether events were
// lost. There is more when wake yields.
func (w *watch) take() (events []Event, lost bool) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	events, lost = w.queue, w.lost
	w.queue = nil
	return events, lost
}
