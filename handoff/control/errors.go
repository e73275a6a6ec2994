package control

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// The conditions that a caller may want to branch on, by [errors.Is], in addition to those
// of package handoff. A call returns [handoff.ErrPeerRefused] if the server does not allow
// the user of the caller, or the caller that of the server, and [handoff.ErrVersion] or
// [handoff.ErrUnsupported] if the server is too old or too new.
var (
	// ErrNoServer says that there is no control socket. It matches
	// [os.ErrNotExist].
	ErrNoServer error = failure.NoServer
	// ErrStale says that no process serves the control socket: the server was killed. The
	// next server that starts replaces the socket.
	ErrStale error = failure.Stale
	// ErrNoAnswer says that the server closed the connection without an answer: it has
	// ended, or was killed.
	ErrNoAnswer error = failure.NoAnswer
	// ErrNoSpace says that the server could not write to a disk, which is full. It
	// matches [syscall.ENOSPC].
	ErrNoSpace error = failure.NoSpace
)

// ExitStatus returns the exit status with which the command baton reports err, and the
// name of err in its JSON. For nil they are 0 and "none", for an error that is not one of
// this package or of package handoff 1 and "other".
func ExitStatus(err error) (status int, name string) {
	reason := failure.Of(err)
	status = reason.Exit()
	var ue *handoff.UpgradeError
	if !errors.As(err, &ue) {
		return status, reason.Name()
	}
	if reason == failure.Other {
		status = failure.Aborted.Exit() // as any upgrade that fails
	}
	if status == failure.Aborted.Exit() && ue.Outcome == handoff.OutcomeRolledBack {
		status = failure.RolledBack.Exit() // as in its report
	}
	return status, reason.Name()
}

// serverError is the text and the reason that a server gives.
type serverError struct {
	text   string
	reason failure.Reason
}

func (e *serverError) Error() string { return e.text }
func (e *serverError) Unwrap() error { return e.reason }

// failureError makes an error of what the server says.
func failureError(f *operate.Failure) error {
	err := &serverError{f.Text, f.Reason}
	if f.Text == "" {
		err.text = "control: the server gives no reason"
	}
	if f.Upgrade == nil {
		return err
	}
	return &handoff.UpgradeError{PID: f.Upgrade.PID, Stderr: f.Upgrade.Stderr, Outcome: handoff.Outcome(f.Upgrade.Outcome), Err: err}
}

// advice is for the user of a tool that a server refuses.
var advice = map[failure.Reason]string{
	failure.Version:     "use the tool that belongs to the server's release: ",
	failure.Unsupported: "the server is older than this tool: ",
}

// refusalError makes an error of a refusal.
func refusalError(m *wire.Refuse) error {
	return fmt.Errorf("%w: %s%s", cmp.Or(m.Reason, failure.Other), advice[m.Reason], m.Text)
}
