package session

import (
	"errors"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// Reason says why a conversation ended without a commit.
type Reason uint8

// The reasons.
const (
	ReasonNone       Reason = iota
	ReasonDied              // the peer closed the conversation, or its process ended
	ReasonTimeout           // the peer was not ready in time
	ReasonHung              // the peer answered nothing for too long
	ReasonAborted           // the successor refused
	ReasonRolledBack        // the predecessor withdrew
	ReasonCanceled          // the caller of the upgrade gave up
	ReasonRefused           // the predecessor would not begin
	ReasonVersion           // no common protocol version
	ReasonProtocol          // the peer broke the protocol
	ReasonTransfer          // sockets or state could not be passed
)

var reasonText = [...]string{
	ReasonNone:       "none",
	ReasonDied:       "died",
	ReasonTimeout:    "timed out",
	ReasonHung:       "hung",
	ReasonAborted:    "aborted",
	ReasonRolledBack: "rolled back",
	ReasonCanceled:   "canceled",
	ReasonRefused:    "refused",
	ReasonVersion:    "version mismatch",
	ReasonProtocol:   "protocol error",
	ReasonTransfer:   "transfer",
}

func (r Reason) String() string { return reasonText[r] }

// Error is how a conversation ends without a commit.
type Error struct {
	Reason Reason
	Code   wire.Code // the peer's own word, where it sent one
	Text   string    // the peer's words, or ours
	Err    error     // the cause, where there is one
}

func (e *Error) Error() string {
	s := e.Reason.String()
	if detail := e.Detail(); detail != "" {
		s += ": " + detail
	}
	return s
}

// Detail is what there is to say beside the reason.
func (e *Error) Detail() string {
	switch {
	case e.Err == nil:
		return e.Text
	case e.Text == "":
		return e.Err.Error()
	}
	return e.Text + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Ended says how the successor's process has ended: err is what exec.Cmd.Wait
// returns.
func Ended(err error) *Error {
	if err == nil {
		err = errors.New("exit status 0")
	}
	return &Error{Reason: ReasonDied, Text: "its process ended", Err: err}
}
