package handoff

import (
	"fmt"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// The conditions that a caller may want to branch on, by [errors.Is].
var (
	// ErrInProgress says that another upgrade is under way, or that one can't
	// begin yet because an earlier generation is not done.
	ErrInProgress error = failure.InProgress
	// ErrNotReady says that Ready has not been called.
	ErrNotReady error = failure.NotReady
	// ErrTooLate says that what was called must be called before Ready.
	ErrTooLate error = failure.TooLate
	// ErrInProbation says that this process is a successor that is not committed.
	ErrInProbation error = failure.InProbation
	// ErrNoUpgrade says that there is no upgrade under way.
	ErrNoUpgrade error = failure.NoUpgrade
	// ErrNoSuccessor says that no successor is committed.
	ErrNoSuccessor error = failure.NoSuccessor
	// ErrStart says that the system could not start the successor: its program is
	// missing, for example, or built for another machine.
	ErrStart error = failure.Start
	// ErrSuccessorDied says that the successor ended before commit. What it wrote
	// last is in [UpgradeError.Stderr].
	ErrSuccessorDied error = failure.SuccessorDied
	// ErrPredecessorDied says that the predecessor ended before it had passed on
	// its sockets.
	ErrPredecessorDied error = failure.PredecessorDied
	// ErrTimeout says that the other process did not reach the next step in time.
	ErrTimeout error = failure.Timeout
	// ErrAborted says that the successor refused the upgrade.
	ErrAborted error = failure.Aborted
	// ErrRolledBack says that the predecessor took its sockets back.
	ErrRolledBack error = failure.RolledBack
	// ErrPeerRefused says that one of the two processes does not allow the user of the
	// other: see Config.Allow.
	ErrPeerRefused error = failure.PeerRefused
	// ErrVersion says that the two processes have no protocol version in common.
	ErrVersion error = failure.Version
	// ErrProtocol says that the other process broke the protocol.
	ErrProtocol error = failure.Protocol
	// ErrMismatch says that the successor is no version of the predecessor's service: it
	// has another Name, or its program has opened none of the predecessor's sockets, or
	// not all of them although Config.RequireAll is set.
	ErrMismatch error = failure.Mismatch
	// ErrTransfer says that sockets or state could not be passed on.
	ErrTransfer error = failure.Transfer
	// ErrCommitted says that it is too late: the upgrade is committed.
	ErrCommitted error = failure.Committed
	// ErrNotTaken says that the successor did not take a connection; the caller
	// still owns it.
	ErrNotTaken error = failure.NotTaken
	// ErrInDoubt says that the successor died, or does not answer, and may have used a
	// connection that this process passed to it. This process has closed the connection.
	ErrInDoubt error = failure.InDoubt
	// ErrClosed says that the Upgrader has ended, or is ending: Done is closed. It
	// matches [net.ErrClosed].
	ErrClosed error = failure.Closed
	// ErrNotStored says that systemd does not keep a socket for the next process.
	ErrNotStored error = failure.NotStored
	// ErrUnsupported says that the operating system, the process or the mode
	// can't do what was asked for. It matches [errors.ErrUnsupported].
	ErrUnsupported error = failure.Unsupported
)

// An UpgradeError says why an upgrade failed. It unwraps to one of the package's
// sentinels and to the cause.
type UpgradeError struct {
	// PID is the successor's process ID, or 0 if there was none.
	PID int
	// Stderr holds the last lines that the successor wrote to its standard
	// error, oldest first. In mode Inherit they begin when the successor calls New.
	// What it writes before, such as a panic in an init function, is only in the
	// predecessor's own standard error, and Err says so.
	Stderr []string
	// Outcome is that of the upgrade's [Report]: OutcomeFailed or OutcomeRolledBack. In an
	// error of package control it is OutcomePending if the server is an older version,
	// which does not send the outcome.
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
