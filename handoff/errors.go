package handoff

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
)

// The conditions that a caller may want to branch on, by [errors.Is].
var (
	// ErrInProgress says that another upgrade is under way, or that one can't
	// begin yet because an earlier generation is not done.
	ErrInProgress error = failure.InProgress
	// ErrNotReady says that the process asked is not ready itself.
	ErrNotReady error = failure.NotReady
	// ErrStart says that the successor could not be started: its program is not
	// there, say, or not for this machine.
	ErrStart error = failure.Start
	// ErrSuccessorDied says that the successor ended before commit. What it wrote
	// last is in [UpgradeError.Stderr].
	ErrSuccessorDied error = failure.SuccessorDied
	// ErrPredecessorDied says that the predecessor ended before it had passed on
	// its sockets.
	ErrPredecessorDied error = failure.PredecessorDied
	// ErrTimeout says that the peer did not do its part in time.
	ErrTimeout error = failure.Timeout
	// ErrAborted says that the successor refused the upgrade.
	ErrAborted error = failure.Aborted
	// ErrRolledBack says that the predecessor took its sockets back.
	ErrRolledBack error = failure.RolledBack
	// ErrPeerRefused says that a peer may not talk to us, or we not to it.
	ErrPeerRefused error = failure.PeerRefused
	// ErrVersion says that the two processes have no protocol version in common.
	ErrVersion error = failure.Version
	// ErrProtocol says that a peer broke the protocol.
	ErrProtocol error = failure.Protocol
	// ErrTransfer says that sockets or state could not be passed on.
	ErrTransfer error = failure.Transfer
	// ErrCommitted says that it is too late: the upgrade is committed.
	ErrCommitted error = failure.Committed
	// ErrNotTaken says that the successor did not take a connection; the caller
	// still owns it.
	ErrNotTaken error = failure.NotTaken
	// ErrInDoubt says that the successor died, or fell silent, when it may have
	// used a connection that was passed to it. The connection is closed.
	ErrInDoubt error = failure.InDoubt
	// ErrClosed says that the upgrader is at its end. It matches [net.ErrClosed].
	ErrClosed error = failure.Closed
	// ErrNotStored says that systemd does not keep a socket for the next process.
	ErrNotStored error = failure.NotStored
	// ErrUnsupported says that the operating system, the process or the mode
	// can't do what was asked for. It matches [errors.ErrUnsupported].
	ErrUnsupported error = failure.Unsupported
)

// errNoUpgrade matches ErrNotReady, whose words are for those who have not called
// Ready.
var errNoUpgrade error = &derived{"handoff: no upgrade is under way", ErrNotReady}

// derived is a sentinel that is also another one, of the standard library mostly.
type derived struct {
	text string
	is   error
}

func (d *derived) Error() string { return d.text }
func (d *derived) Unwrap() error { return d.is }

// An UpgradeError is how an upgrade failed. It unwraps to one of the package's
// sentinels and to the cause.
type UpgradeError struct {
	// PID is the successor's process ID, or 0 if there was none.
	PID int
	// Stderr holds the last lines that the successor wrote to its standard
	// error, oldest first. In mode Inherit they begin when the successor has
	// called New: a panic in an init function, say, is in the predecessor's own
	// standard error alone, which the successor has until then, and Err says so.
	Stderr []string
	// Outcome is that of its [Report]: OutcomeFailed, or OutcomeRolledBack. It is
	// OutcomePending where a server that is older does not say so.
	Outcome Outcome
	// Err is the reason.
	Err error
}

func (e *UpgradeError) Error() string {
	var b strings.Builder
	b.WriteString("upgrade")
	if e.PID != 0 {
		fmt.Fprintf(&b, " to pid %d", e.PID)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if len(e.Stderr) > 0 {
		fmt.Fprintf(&b, "; its last words:\n\t%s", strings.Join(e.Stderr, "\n\t"))
	}
	return b.String()
}

// Unwrap returns the reason.
func (e *UpgradeError) Unwrap() error { return e.Err }

// upgradeError adds the sentinel to the end of a conversation.
func upgradeError(err error) error {
	var e *session.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Reason {
	case session.ReasonDied:
		return ending(ErrSuccessorDied, e)
	case session.ReasonTimeout, session.ReasonHung:
		return ending(ErrTimeout, e)
	case session.ReasonAborted:
		return ending(ErrAborted, e)
	case session.ReasonRolledBack, session.ReasonCanceled:
		return ending(ErrRolledBack, e)
	case session.ReasonVersion:
		return ending(ErrVersion, e)
	case session.ReasonProtocol:
		return ending(ErrProtocol, e)
	case session.ReasonTransfer:
		return ending(ErrTransfer, e)
	}
	return err
}

// ending adds the sentinel for the end of a conversation to it, and does not say
// twice what is the reason.
func ending(sentinel error, e *session.Error) error {
	detail := e.Detail()
	if e.Reason == session.ReasonHung { // no sentinel says that
		detail = e.Error()
	}
	return &ended{sentinel, e, detail}
}

// ended is what ending returns.
type ended struct {
	sentinel error
	end      *session.Error
	detail   string
}

func (e *ended) Error() string {
	if e.detail == "" {
		return e.sentinel.Error()
	}
	return e.sentinel.Error() + ": " + e.detail
}

func (e *ended) Unwrap() []error { return []error{e.sentinel, e.end} }
