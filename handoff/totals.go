package handoff

import "github.com/seed-11c92bf9/baton/handoff/internal/wire"

// Totals count what has happened since the first process of a line: each
// process tells its successor at commit. They begin anew where that is an older
// Baton, or was killed.
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

// upgraded counts an upgrade.
func (t *Totals) upgraded(o Outcome) {
	switch o {
	case OutcomeCommitted:
		t.Committed++
	case OutcomeRolledBack:
		t.RolledBack++
	case OutcomeFailed:
		t.Failed++
	case OutcomePending: // it is not over
	}
}

// learn adds what a predecessor has counted.
func (t *Totals) learn(m wire.Account) {
	t.Committed += m.Committed
	t.RolledBack += m.RolledBack
	t.Failed += m.Failed
	t.Moved += m.Moved
	t.Cut += m.Cut
}

// account is what a successor goes on from.
func (t *Totals) account(body []byte) wire.Account {
	return wire.Account{
		Body: body, Committed: t.Committed, RolledBack: t.RolledBack, Failed: t.Failed, Moved: t.Moved, Cut: t.Cut,
	}
}
