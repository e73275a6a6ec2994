package handoff

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// Totals count upgrades and connections since the first process of a line: at the commit
// each process sends its totals to its successor. If the predecessor uses an older
// version of this package, or was killed, they begin at zero.
type Totals struct {
	Committed  uint64 `json:"committed"`   // upgrades, by outcome
	RolledBack uint64 `json:"rolled_back"` // likewise
	Failed     uint64 `json:"failed"`      // likewise

	// Moved and Cut count the connections that were passed to a successor, and those
	// that were closed by force. Those of a predecessor are included when its linger is
	// over.
	Moved uint64 `json:"moved"`
	Cut   uint64 `json:"cut"`
}

// add adds what another process has counted.
func (t *Totals) add(o Totals) {
	t.Committed += o.Committed
	t.RolledBack += o.RolledBack
	t.Failed += o.Failed
	t.Moved += o.Moved
	t.Cut += o.Cut
}

const (
	maxReports = 16 // that are kept

	// historyTimeout bounds how long a request for the status of a new owner waits
	// for the predecessor's account, which follows Commit.
	historyTimeout = 500 * time.Millisecond
)

// line is what a process knows of its line. In JSON it is what its successor gets: the
// totals come first, so that a report that the successor can't read does not hide them.
type line struct {
	Totals  Totals   `json:"totals"`
	Reports []Report `json:"reports"` // oldest first
}

// history keeps the reports of the last upgrades and the totals of the line.
type history struct {
	mu   sync.Mutex
	line line // without the connections of this process

	own        map[string]string // how this process has moved to its own sockets, by address
	generation uint64            // its own

	settled chan struct{} // closed when no predecessor sends more
	once    sync.Once     // closes settled
}

func newHistory() *history {
	return &history{own: make(map[string]string), settled: make(chan struct{})}
}

// record adds the report of an upgrade that has ended.
func (h *history) record(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reports = lastReports(append(h.line.Reports, r))
	switch r.Outcome {
	case OutcomeCommitted:
		h.line.Totals.Committed++
	case OutcomeRolledBack:
		h.line.Totals.RolledBack++
	case OutcomeFailed:
		h.line.Totals.Failed++
	case OutcomePending: // it has not ended
	}
}

func lastReports(all []Report) []Report { return all[max(0, len(all)-maxReports):] }

// complete replaces the last report by one with the linger in it.
func (h *history) complete(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reports[len(h.line.Reports)-1] = r
}

// moved keeps how this process has moved to its own sockets on an address, for the
// report of the upgrade to its generation, which the predecessor sends.
func (h *history) moved(generation uint64, address, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generation, h.own[address] = generation, why
}

// copy returns what is known of the line.
func (h *history) copy() line {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := line{h.line.Totals, append([]Report{}, h.line.Reports...)}
	for i := range l.Reports {
		if r := &l.Reports[i]; len(h.own) > 0 && r.Generation == h.generation && r.Outcome == OutcomeCommitted {
			r.OwnSockets = maps.Clone(h.own)
		}
	}
	return l
}

// status adds the line to the status. The totals are missing until the history is
// settled.
func (h *history) status(s *Status) {
	l := h.copy()
	s.Upgrades = l.Reports
	select {
	case <-h.settled:
		l.Totals.add(Totals{Moved: s.Moved, Cut: s.Cut})
		s.Totals = &l.Totals
	default:
	}
}

// account returns what the successor gets: the totals, and as many of the last reports
// as fit into a message.
func (h *history) account() (wire.Account, error) {
	l := h.copy()
	for {
		body, err := json.Marshal(l)
		if err != nil || len(body) <= wire.MaxBody {
			return wire.Account{Body: body}, err
		}
		l.Reports = l.Reports[1:]
	}
}

// receive takes over the account of the predecessor.
func (h *history) receive(m wire.Account) error {
	defer h.settle()
	var l line
	err := json.Unmarshal(m.Body, &l)
	if err != nil { // a newer version has another form of report, say
		l.Reports = nil
	}
	l.Reports = slices.DeleteFunc(l.Reports, func(r Report) bool { return !slices.Contains(modes[:], r.Mode) }) // a newer version's
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Totals.add(l.Totals)
	h.line.Reports = lastReports(append(l.Reports, h.line.Reports...))
	return err
}

// settle says that no predecessor sends more.
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

// wireReasons are the reasons of a report for the successor, which gets the most frequent
// ones if there are too many.
func wireReasons(by map[string]uint64) []wire.Reason {
	all := make([]wire.Reason, 0, len(by))
	for text, n := range by {
		if len(text) <= wire.MaxName {
			all = append(all, wire.Reason{Text: text, Count: n})
		}
	}
	slices.SortFunc(all, func(a, b wire.Reason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	return all[:min(len(all), wire.MaxEntries)]
}

// cutBy is the reverse of wireReasons.
func cutBy(all []wire.Reason) map[string]uint64 {
	if len(all) == 0 {
		return nil
	}
	by := make(map[string]uint64, len(all))
	for _, r := range all {
		by[r.Text] += r.Count
	}
	return by
}

// predecessorDone adds the linger of a predecessor, which has ended, to the report
// of the upgrade that replaced it.
func (h *history) predecessorDone(generation uint64, bye wire.Bye) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Totals.add(Totals{Moved: bye.Moved, Cut: bye.Cut})
	for i := range h.line.Reports {
		r := &h.line.Reports[i]
		if r.Generation == generation+1 && r.Outcome == OutcomeCommitted {
			r.Moved, r.Cut, r.CutBy = bye.Moved, bye.Cut, cutBy(bye.CutBy)
			r.Durations.Linger = time.Since(r.Started) - r.Durations.Total
		}
	}
}
