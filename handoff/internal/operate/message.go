package operate

import (
	"errors"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// The requests, as wire.Request names them.
const (
	OpStatus   = "status"   // no body; one Answer or more, each with Status
	OpUpgrade  = "upgrade"  // body Upgrade; Answers with Event and Linger, the last with Report
	OpRollback = "rollback" // body Rollback; an Answer with Report
	OpDrain    = "drain"    // body Drain; Answers with Event and Linger
	OpEvents   = "events"   // body Events; Answers with Event
	OpCancel   = "cancel"   // in the connection of an upgrade: take it back; not answered
)

// Wait says when an answer is final.
type Wait string

// The values of Wait.
const (
	WaitCommit Wait = "commit" // when the upgrade is committed, or has failed; the zero value means this
	WaitLinger Wait = "linger" // when the open connections are done as well
	WaitNone   Wait = "none"   // when the request has been taken
)

// Upgrade is the body of OpUpgrade.
type Upgrade struct {
	Executable string        `json:"executable,omitempty"` // absolute; empty means the server's own
	Env        []string      `json:"env,omitempty"`        // KEY=VALUE, over the server's own
	Timeout    time.Duration `json:"timeout,omitempty"`    // up to the commit; 0 means the server's own limits alone
	Wait       Wait          `json:"wait,omitempty"`
}

// Rollback is the body of OpRollback.
type Rollback struct {
	Reason string `json:"reason,omitempty"`
}

// Drain is the body of OpDrain. WaitCommit means the same as WaitLinger.
type Drain struct {
	Reason string `json:"reason,omitempty"`
	Wait   Wait   `json:"wait,omitempty"`
	// Process asks for a descriptor of the process (pidfd_open(2)), by which the
	// tool sees it end. It comes with an answer that says nothing else, or not.
	Process bool `json:"process,omitempty"`
}

// Events is the body of OpEvents.
type Events struct {
	Follow bool `json:"follow,omitempty"` // go on after the last events
}

// Answer is the body of each response.
type Answer struct {
	Status  any      `json:"status,omitempty"` // handoff.Status; further ones have more sockets
	Event   any      `json:"event,omitempty"`  // handoff.Event
	Report  any      `json:"report,omitempty"` // handoff.Report
	Linger  *Linger  `json:"linger,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
}

// Linger tells how far open connections have come.
type Linger struct {
	Open      uint64        `json:"open"`
	Moved     uint64        `json:"moved"`
	Cut       uint64        `json:"cut"`
	Remaining time.Duration `json:"remaining"` // until the linger limit; negative if there is none
}

// Failure says why a request failed.
type Failure struct {
	Reason  failure.Reason `json:"reason"` // its number
	Text    string         `json:"text"`
	Upgrade *FailedUpgrade `json:"upgrade,omitempty"` // that began and failed
}

// FailedUpgrade is an error of Service.Upgrade, and what a tool gets to know of the
// successor.
type FailedUpgrade struct {
	Outcome string   `json:"outcome"`
	PID     int      `json:"pid,omitempty"`    // of the successor; 0 if none was started
	Stderr  []string `json:"stderr,omitempty"` // its last lines
	Err     error    `json:"-"`
}

func (f *FailedUpgrade) Error() string { return f.Err.Error() }

// Unwrap returns the reason.
func (f *FailedUpgrade) Unwrap() error { return f.Err }

// failureOf describes err.
func failureOf(err error) *Failure {
	f := &Failure{Reason: failure.Of(err), Text: err.Error()}
	errors.As(err, &f.Upgrade)
	f.Text = f.Text[:min(len(f.Text), wire.MaxText)]
	return f
}
