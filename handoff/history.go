package handoff

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// Totals count what has happened since the first process of a line: each process
// sends its own to its successor at commit. They begin anew where the predecessor
// is an older Baton, or was killed.
type Totals struct {
	Committed  uint64 `json:"committed"`   // upgrades, by outcome
	RolledBack uint64 `json:"rolled_back"` // likewise
	Failed     uint64 `json:"failed"`      // likewise

	// Moved and Cut count the connections that were passed to a successor, and
	// those that were closed by force: of this process, and of its predecessors
	// once their linger is over.
	Moved uint64 `json:"moved"`
	Cut   uint64 `json:"cut"`
}

const (
	maxReports = 16 // that are kept

	// historyTimeout bounds how long a request for the status of a new owner waits
	// for the predecessor's account, which follows Commit.
	historyTimeout = 500 * time.Millisecond
)

// history keeps the reports of the last upgrades and the totals of the line.
type history struct {
	mu           sync.Mutex
	predecessors []Report
	own          []Report
	totals       Totals // without the connections of this process

	settled chan struct{} // closed when no account of a predecessor comes any more
	once    sync.Once     // closes settled
}

func newHistory() *history { return &history{settled: make(chan struct{})} }

// record adds the report of an upgrade that has ended.
func (h *history) record(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own = append(h.own, r)
	h.own = h.own[max(0, len(h.own)-maxReports):]
	switch r.Outcome {
	case OutcomeCommitted:
		h.totals.Committed++
	case OutcomeRolledBack:
		h.totals.RolledBack++
	case OutcomeFailed:
		h.totals.Failed++
	case OutcomePending: // it has not ended
	}
}

// complete replaces the last report by one with the linger in it.
func (h *history) complete(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own[len(h.own)-1] = r
}

// reports returns the reports of this process, oldest first.
func (h *history) reports() []Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Report(nil), h.own...)
}

// line returns the reports of the predecessors and of this process, oldest first,
// and the totals without the connections of this process.
func (h *history) line() ([]Report, Totals) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := append(append([]Report{}, h.predecessors...), h.own...)
	return all[max(0, len(all)-maxReports):], h.totals
}

// status fills in what a process of these connections says of the line. Its totals
// are missing until the history is settled.
func (h *history) status(s *Status) {
	var totals Totals
	s.Upgrades, totals = h.line()
	select {
	case <-h.settled:
		totals.Moved += s.Moved
		totals.Cut += s.Cut
		s.Totals = &totals
	default:
	}
}

// account returns what the successor gets: as many of the last reports as fit into
// a message, and the totals.
func (h *history) account() (wire.Account, error) {
	all, t := h.line()
	for {
		body, err := json.Marshal(all)
		if err != nil {
			return wire.Account{}, err
		}
		if len(body) <= wire.MaxBody {
			return wire.Account{
				Body: body, Committed: t.Committed, RolledBack: t.RolledBack, Failed: t.Failed, Moved: t.Moved, Cut: t.Cut,
			}, nil
		}
		all = all[1:]
	}
}

// receive takes over the account of the predecessor.
func (h *history) receive(m wire.Account) error {
	defer h.settle()
	var all []Report
	err := json.Unmarshal(m.Body, &all) // fails where a report has a mode of a newer version, say
	h.mu.Lock()
	defer h.mu.Unlock()
	h.totals.Committed += m.Committed
	h.totals.RolledBack += m.RolledBack
	h.totals.Failed += m.Failed
	h.totals.Moved += m.Moved
	h.totals.Cut += m.Cut
	if err == nil {
		h.predecessors = all[max(0, len(all)-maxReports):]
	}
	return err
}

// settle says that no account of a predecessor comes any more.
func (h *history) settle() { h.once.Do(func() { close(h.settled) }) }

// await waits until the history is settled, or stop is closed.
func (h *history) await(stop <-chan struct{}) {
	t := time.NewTimer(historyTimeout)
	defer t.Stop()
	select {
	case <-h.settled:
	case <-t.C:
		h.settle() // the predecessor sends none, or is gone
	case <-stop:
	}
}

// predecessorDone adds the linger of a predecessor, which has ended, to the report
// of the upgrade that replaced it.
func (h *history) predecessorDone(generation uint64, bye wire.Bye) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.totals.Moved += bye.Moved
	h.totals.Cut += bye.Cut
	for i := range h.predecessors {
		r := &h.predecessors[i]
		if r.Generation == generation+1 && r.Outcome == OutcomeCommitted {
			r.Moved, r.Cut = bye.Moved, bye.Cut
			r.Durations.Linger = time.Since(r.Started) - r.Durations.Total
		}
	}
}
