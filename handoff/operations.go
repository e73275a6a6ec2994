package handoff

import (
	"encoding/json"
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

	// Upgrader.mu guards what follows.
	step     *Event   // the last one of the upgrade that is under way, or of the last one
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
		u.mu.Lock()
		u.ops.step = &e
		u.mu.Unlock()
	}
	u.ops.watches.tell(e)
	u.tellSystemd(e)
	if e.Kind == EventOwner {
		u.dropRest()
	}
}

// tellHistory tells our successor how the last upgrades went.
func (u *Upgrader) tellHistory(l *session.Lingering, last Report) {
	u.mu.Lock()
	all := append(append(append([]Report{}, u.ops.history...), u.reports...), last)
	totals := u.ops.totals
	u.mu.Unlock()
	all = all[max(0, len(all)-maxReports):]
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
	u.store.isMain() // it has told systemd before
	u.mu.Lock()
	u.ops.totals.learn(m)
	u.mu.Unlock()
	var all []Report
	if err := json.Unmarshal(m.Body, &all); err != nil {
		u.log.Debug("account of the last upgrades", "error", err) // a mode that we don't know, say
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ops.history = all[max(0, len(all)-maxReports):]
}

// finishHistory adds a predecessor's last word to its account.
func (u *Upgrader) finishHistory(generation uint64, bye wire.Bye) {
	u.mu.Lock()
	defer u.mu.Unlock()
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
