package handoff

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
)

// The conditions that a caller may want to branch on, by [errors.Is].
var (
	// ErrInProgress says that another upgrade is under way, or that one can't
	// begin yet because an earlier generation is not done.
	ErrInProgress = errors.New("handoff: an upgrade is in progress: wait for it to end, then try again")
	// ErrNotReady says that the process asked is not ready itself.
	ErrNotReady = errors.New("handoff: not ready: Ready must be called first")
	// ErrStart says that the successor could not be started: its program is not
	// there, say, or not for this machine.
	ErrStart = errors.New("handoff: the successor can't be started")
	// ErrSuccessorDied says that the successor ended before commit. What it wrote
	// last is in [UpgradeError.Stderr].
	ErrSuccessorDied = errors.New("handoff: the successor died")
	// ErrPredecessorDied says that the predecessor ended before it had passed on
	// its sockets.
	ErrPredecessorDied = errors.New("handoff: the predecessor died before it had passed on its sockets")
	// ErrTimeout says that the peer did not do its part in time.
	ErrTimeout error = &derived{"handoff: timed out", timeout{}}
	// ErrAborted says that the successor refused the upgrade.
	ErrAborted = errors.New("handoff: the successor aborted the upgrade")
	// ErrRolledBack says that the predecessor took its sockets back.
	ErrRolledBack = errors.New("handoff: rolled back")
	// ErrPeerRefused says that a peer may not talk to us, or we not to it.
	ErrPeerRefused = errors.New("handoff: peer refused")
	// ErrVersion says that the two processes have no protocol version in common.
	ErrVersion = errors.New("handoff: no common protocol version: upgrade in smaller steps")
	// ErrProtocol says that a peer broke the protocol.
	ErrProtocol = errors.New("handoff: protocol error")
	// ErrTransfer says that sockets or state could not be passed on.
	ErrTransfer = errors.New("handoff: sockets or state could not be passed on")
	// ErrCommitted says that it is too late: the upgrade is committed.
	ErrCommitted = errors.New("handoff: already committed")
	// ErrNotTaken says that the successor did not take a connection; the caller
	// still owns it.
	ErrNotTaken = errors.New("handoff: the successor did not take the connection")
	// ErrInDoubt says that the successor died, or fell silent, when it may have
	// used a connection that was passed to it. The connection is closed.
	ErrInDoubt = errors.New("handoff: the successor is gone and may have used the connection, which is closed")
	// ErrClosed says that the upgrader is at its end. It matches [net.ErrClosed].
	ErrClosed error = &derived{"handoff: upgrader closed", net.ErrClosed}
	// ErrNotStored says that systemd does not keep a socket for the next process.
	ErrNotStored = errors.New("handoff: not in systemd's store")
	// ErrUnsupported says that the operating system, the process or the mode
	// can't do what was asked for. It matches [errors.ErrUnsupported].
	ErrUnsupported error = &derived{"handoff: not supported", errors.ErrUnsupported}
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

// timeout makes ErrTimeout a net.Error with Timeout() == true.
type timeout struct{}

func (timeout) Error() string   { return "timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return false }

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
