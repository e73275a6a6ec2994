package failure

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// A Reason says why something failed. It is an error: wrap it with %w, and find it
// with [errors.Is] or [Of].
type Reason uint32

// The reasons. Their numbers are on the wire: a new one is added at the end, and
// none is used again.
const (
	None            Reason = iota // nothing failed
	Other                         // no reason of this list
	InProgress                    // another upgrade, or the end of an earlier one, is under way
	NotReady                      // Ready was not called
	InProbation                   // the process is a successor that is not committed
	NoUpgrade                     // there is no upgrade under way
	NoSuccessor                   // no successor is committed
	Start                         // the successor's program can't be started
	SuccessorDied                 // the successor ended before commit
	PredecessorDied               // the predecessor ended before it had passed on its sockets
	Timeout                       // the peer did not do its part in time
	Hung                          // the peer is silent
	Aborted                       // the successor gave up
	RolledBack                    // the predecessor took its sockets back
	Canceled                      // the caller of the upgrade gave up
	PeerRefused                   // the peer's user or process is not allowed
	Version                       // no common protocol version
	Protocol                      // the peer broke the protocol
	Transfer                      // sockets or state could not be passed on
	Committed                     // the upgrade is committed
	NotTaken                      // the successor did not take a connection
	InDoubt                       // the successor may have used a connection
	Closed                        // the upgrader is at its end
	NotStored                     // systemd does not keep a socket
	Unsupported                   // the system, the process or the mode can't do it
	NoSpace                       // a disk is full
	NoServer                      // there is no control socket
	Stale                         // the control socket has no process behind it
	NoAnswer                      // the server closed the connection before its answer
	TooLate                       // Ready was called before
	Mismatch                      // the two processes are not versions of one service
)

// The exit statuses of the command that reasons have. README and manual list them.
const (
	exitDone        = 0
	exitOther       = 1
	exitNoServer    = 3
	exitStale       = 4
	exitNotAllowed  = 5
	exitUnsupported = 6
	exitNoSpace     = 7
	exitFailed      = 8
	exitRolledBack  = 9
	exitTimeout     = 10
	exitInProgress  = 11
	exitNotNow      = 12
	exitTooLate     = 13
	exitBrokeOff    = 15
)

// table has a row for each reason.
var table = [...]struct {
	name string // in JSON
	text string
	exit int
	is   error // what the reason matches too
}{
	None:            {"none", "handoff: no failure", exitDone, nil},
	Other:           {"other", "handoff: failed", exitOther, nil},
	InProgress:      {"in-progress", "handoff: an upgrade is in progress: wait for it to end, then try again", exitInProgress, nil},
	NotReady:        {"not-ready", "handoff: not ready: Ready must be called first", exitNotNow, nil},
	InProbation:     {"in-probation", "handoff: this process is in probation itself: upgrade when it is committed", exitNotNow, nil},
	NoUpgrade:       {"no-upgrade", "handoff: no upgrade is under way", exitNotNow, nil},
	NoSuccessor:     {"no-successor", "handoff: no successor is committed", exitNotNow, nil},
	Start:           {"not-started", "handoff: the successor can't be started", exitFailed, nil},
	SuccessorDied:   {"successor-died", "handoff: the successor died", exitFailed, nil},
	PredecessorDied: {"predecessor-died", "handoff: the predecessor died before it had passed on its sockets", exitFailed, nil},
	Timeout:         {"timeout", "handoff: timed out", exitTimeout, timeout{}},
	Hung:            {"hung", "handoff: timed out: hung", exitTimeout, Timeout},
	Aborted:         {"aborted", "handoff: the successor aborted the upgrade", exitFailed, nil},
	RolledBack:      {"rolled-back", "handoff: rolled back", exitRolledBack, nil},
	Canceled:        {"canceled", "handoff: rolled back: the caller gave up", exitRolledBack, RolledBack},
	PeerRefused:     {"peer-refused", "handoff: peer refused", exitNotAllowed, nil},
	Version:         {"version", "handoff: no common protocol version: upgrade in smaller steps", exitUnsupported, nil},
	Protocol:        {"protocol", "handoff: protocol error", exitUnsupported, nil},
	Transfer:        {"transfer", "handoff: sockets or state could not be passed on", exitFailed, nil},
	Committed:       {"committed", "handoff: already committed", exitTooLate, nil},
	NotTaken:        {"not-taken", "handoff: the successor did not take the connection", exitOther, nil},
	InDoubt:         {"in-doubt", "handoff: the successor is gone and may have used the connection, which is closed", exitOther, nil},
	Closed:          {"closed", "handoff: upgrader closed", exitBrokeOff, net.ErrClosed},
	NotStored:       {"not-stored", "handoff: not in systemd's store", exitOther, nil},
	Unsupported:     {"unsupported", "handoff: not supported", exitUnsupported, errors.ErrUnsupported},
	NoSpace:         {"no-space", "control: the server found a disk full: make room, then try again", exitNoSpace, syscall.ENOSPC},
	NoServer:        {"no-server", "control: no server: there is no control socket", exitNoServer, os.ErrNotExist},
	Stale:           {"stale", "control: no server: its control socket is left over from one that was killed", exitStale, nil},
	TooLate:         {"too-late", "handoff: too late: Ready was called before", exitOther, nil},
	Mismatch:        {"mismatch", "handoff: not a version of the same service", exitFailed, nil},
	NoAnswer:        {"no-answer", "control: the server broke off before it had answered", exitBrokeOff, nil},
}

// order is that in which [Of] tries the reasons: of two that an error matches, the
// first says more.
var order = [...]Reason{
	NoServer, Stale, NoSpace, PeerRefused, Hung, Timeout, Canceled, RolledBack, Start, SuccessorDied, PredecessorDied, Mismatch, Aborted, Transfer,
	InProgress, NotReady, InProbation, NoUpgrade, NoSuccessor, Committed, Version, Protocol,
	NotTaken, InDoubt, NotStored, TooLate, Unsupported, NoAnswer, Closed, Other,
}

// timeout makes [Timeout] match [net.Error]. These are no methods of Reason: an
// error with two reasons would be a net.Error by the first, whichever that is.
type timeout struct{}

func (timeout) Error() string   { return "timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return false }

// known reports whether this version has the reason: a newer peer may send others.
func (r Reason) known() bool { return int(r) < len(table) }

func (r Reason) Error() string {
	if !r.known() {
		return fmt.Sprintf("handoff: failed for reason %d, which this version does not know", uint32(r))
	}
	return table[r].text
}

// Unwrap returns the wider error that the reason matches too, or nil.
func (r Reason) Unwrap() error {
	if !r.known() {
		return nil
	}
	return table[r].is
}

// Name returns the reason's name in JSON.
func (r Reason) Name() string {
	if !r.known() {
		return Other.Name()
	}
	return table[r].name
}

// Exit returns the command's exit status.
func (r Reason) Exit() int {
	if !r.known() {
		return exitOther
	}
	return table[r].exit
}

// Of returns the reason that an error matches; of several, the one that says most.
// It is [None] for nil, and [Other] where the error matches no reason.
func Of(err error) Reason {
	if err == nil {
		return None
	}
	if errors.Is(err, syscall.ENOSPC) {
		return NoSpace
	}
	for _, r := range order {
		if errors.Is(err, r) {
			return r
		}
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return Unsupported
	}
	return Other
}
