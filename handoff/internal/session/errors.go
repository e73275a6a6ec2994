package session

import (
	"errors"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// Error is how a conversation ends without a commit. It matches its reason and its
// cause.
type Error struct {
	Reason failure.Reason
	Text   string // the peer's words, or ours
	Err    error  // the cause, where there is one
}

func (e *Error) Error() string {
	s := e.Reason.Error()
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Err != nil {
		s += ": " + strings.TrimPrefix(e.Err.Error(), "handoff: ") // which is said
	}
	return s
}

// Unwrap returns the reason and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

// Refusal tells the peer what err says.
func Refusal(err error) *wire.Refuse {
	r := failure.Of(err)
	return &wire.Refuse{Reason: r, Text: words(err, r)}
}

// words are the text of err for a peer that puts the reason before it.
func words(err error, reason failure.Reason) string {
	text := strings.TrimPrefix(err.Error(), reason.Error())
	return strings.TrimPrefix(strings.TrimPrefix(text, ": "), "handoff: ")
}

// Ended says how the successor's process has ended: err is what exec.Cmd.Wait
// returns.
func Ended(err error) *Error {
	if err == nil {
		err = errors.New("exit status 0")
	}
	return &Error{Reason: failure.SuccessorDied, Text: "its process ended", Err: err}
}
