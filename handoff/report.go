package handoff

import (
	"fmt"
	"strings"
	"time"
)

// Outcome is how an upgrade ended.
type Outcome string

// The outcomes.
const (
	OutcomePending    Outcome = ""
	OutcomeCommitted  Outcome = "committed"
	OutcomeRolledBack Outcome = "rolled-back" // after the successor was ready, or because a caller or an operator asked for it
	OutcomeFailed     Outcome = "failed"      // by itself, before the successor was ready
)

// Process names a process of an upgrade.
type Process struct {
	PID     int    `json:"pid"`
	Version string `json:"version,omitempty"` // its Config.Version

	// What follows is that of a predecessor that lingers, in [Status].Lingering, by
	// its last message; zero elsewhere. Remaining is the time until its linger limit,
	// negative if it has none.
	Generation uint64        `json:"generation,omitempty"`
	Open       uint64        `json:"open,omitempty"`  // connections that are tracked or held, still open
	Moved      uint64        `json:"moved,omitempty"` // passed to its successor
	Remaining  time.Duration `json:"remaining,omitempty"`
}

// Durations are the times that the phases of an upgrade took, the one in which it
// has failed included. A phase that was not reached is zero.
type Durations struct {
	Start     time.Duration `json:"start"`     // from the trigger until the successor said Hello
	Transfer  time.Duration `json:"transfer"`  // sockets and state
	Warming   time.Duration `json:"warming"`   // until the successor's Ready
	Probation time.Duration `json:"probation"` // until Commit was sent
	Commit    time.Duration `json:"commit"`    // until the successor confirmed
	Linger    time.Duration `json:"linger"`    // until the last connection was gone
	Total     time.Duration `json:"total"`     // without the linger
}

// A Report is the account of one upgrade, written by the predecessor.
type Report struct {
	Generation  uint64    `json:"generation"` // the successor's, if it is committed
	Mode        Mode      `json:"mode"`
	Predecessor Process   `json:"predecessor"`
	Successor   Process   `json:"successor"`
	Started     time.Time `json:"started"`
	Durations   Durations `json:"durations"`

	Sockets int `json:"sockets"` // passed on, files included
	States  int `json:"states"`  // state blobs passed on

	// Queue and HalfOpen are the connections that waited in the accept queues,
	// and the handshakes that were under way, when the predecessor stopped
	// accepting; -1 if it was not counted.
	Queue    int `json:"queue"`
	HalfOpen int `json:"half_open"`

	// AcceptedBefore is what the predecessor accepted from the start of the
	// upgrade until its pause, AcceptedAfter what the successor accepted until
	// commit.
	AcceptedBefore uint64 `json:"accepted_before"`
	AcceptedAfter  uint64 `json:"accepted_after"`

	// OwnSockets has, in mode Drain, the network and address of each socket that the
	// successor was to move to one of its own after the commit. The value is empty if
	// it has moved without loss. Otherwise it says why the successor serves the
	// predecessor's socket on, or why a loss was possible. The successor adds the map
	// to its copy of the report.
	OwnSockets map[string]string `json:"own_sockets,omitempty"`

	// Open, Moved and Cut tell of the connections that were tracked or held: open
	// at commit, passed to the successor, closed by force at the linger limit.
	Open  uint64 `json:"open"`
	Moved uint64 `json:"moved"`
	Cut   uint64 `json:"cut"`
	// CutBy tells why: "tracked" for the connections of [Upgrader.Track], and
	// what the owners of holds have said. nil if there was none.
	CutBy map[string]uint64 `json:"cut_by,omitempty"`

	// Warnings say what an operator should look at although the upgrade is committed.
	Warnings []string `json:"warnings,omitempty"`

	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"` // why it is not committed
}

// fields are the account as the log has it, but for the linger, which is not
// over when the line is written.
func (r *Report) fields() []any {
	d := &r.Durations
	fields := []any{
		"outcome", r.Outcome, "mode", r.Mode, "generation", r.Generation,
		"predecessor", r.Predecessor.PID, "from", r.Predecessor.Version,
		"successor", r.Successor.PID, "to", r.Successor.Version,
		"took", d.Total, "start", d.Start, "transfer", d.Transfer, "warming", d.Warming, "probation", d.Probation, "commit", d.Commit,
		"sockets", r.Sockets, "states", r.States, "queue", r.Queue, "half_open", r.HalfOpen,
		"accepted_before", r.AcceptedBefore, "accepted_after", r.AcceptedAfter, "open", r.Open,
	}
	if len(r.OwnSockets) > 0 {
		fields = append(fields, "own_sockets", oneLine(fmt.Sprint(r.OwnSockets)))
	}
	if r.Reason != "" {
		fields = append(fields, "reason", oneLine(r.Reason))
	}
	return fields
}

// oneLine keeps a text from being several lines of a log.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' }), " | ")
}
