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

	// The other fields are set for a predecessor that lingers, in [Status].Lingering,
	// from its last message; elsewhere they are zero. Remaining is the time until its
	// linger limit, negative if it has none.
	Generation uint64        `json:"generation,omitempty"`
	Open       uint64        `json:"open,omitempty"`  // connections that are tracked or held, still open
	Moved      uint64        `json:"moved,omitempty"` // passed to its successor
	Remaining  time.Duration `json:"remaining,omitempty"`
}

// Durations are the times that the phases of an upgrade took, the one in which it
// has failed included. A phase that was not reached is zero.
type Durations struct {
	Start     time.Duration `json:"start"`     // from the request until the successor's first message
	Transfer  time.Duration `json:"transfer"`  // sockets and state
	Warming   time.Duration `json:"warming"`   // until the successor's Ready
	Probation time.Duration `json:"probation"` // until the predecessor sent the commit
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

	// AcceptedBefore counts the connections that the predecessor accepted from the start
	// of the upgrade until it stopped accepting, AcceptedAfter those that the successor
	// accepted until the commit.
	AcceptedBefore uint64 `json:"accepted_before"`
	AcceptedAfter  uint64 `json:"accepted_after"`

	// OwnSockets has, in mode Drain, a key for each socket that the successor replaces
	// by one of its own after the commit: its network and address. The value is empty if
	// no connection was lost. Otherwise it says why the successor still serves the
	// predecessor's socket, or why a loss was possible. Only the successor's copy of the
	// report has the map.
	OwnSockets map[string]string `json:"own_sockets,omitempty"`

	// Flows has the addresses of [Upgrader.ListenFlows] at the end of the upgrade: Current is
	// the lane of the process that serves then.
	Flows []FlowStatus `json:"flows,omitempty"`

	// Open, Moved and Cut count connections ([Upgrader.Track], [Upgrader.Hold]) of the
	// predecessor: open at the commit, passed to the successor, closed by force.
	Open  uint64 `json:"open"`
	Moved uint64 `json:"moved"`
	Cut   uint64 `json:"cut"`
	// CutBy counts them by reason: "tracked" for the connections of [Upgrader.Track],
	// and the reasons that callers of [Upgrader.Hold] gave. nil if none was cut.
	CutBy map[string]uint64 `json:"cut_by,omitempty"`

	// Warnings say what an operator should check, although the upgrade is committed.
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
