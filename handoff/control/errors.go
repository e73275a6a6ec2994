package control

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// The conditions that a caller may want to branch on, by [errors.Is], beside
// handoff's: [handoff.ErrPeerRefused] where one of the two may not talk to the
// other, [handoff.ErrVersion] and [handoff.ErrUnsupported] where the server is
// too old or too new, and what an upgrade can fail of.
var (
	// ErrNoServer says that there is no control socket. It matches
	// [os.ErrNotExist].
	ErrNoServer error = &told{"control: no server: there is no control socket", os.ErrNotExist}
	// ErrStale says that there is a control socket and nobody behind it: the
	// server was killed. The next one to start cleans up.
	ErrStale = errors.New("control: no server: its control socket is left over from one that was killed")
	// ErrNoAnswer says that the server broke off before it had answered: it has
	// ended, or was killed.
	ErrNoAnswer = errors.New("control: the server broke off before it had answered")
	// ErrNoSpace says that the server found a disk full. It matches
	// [syscall.ENOSPC].
	ErrNoSpace error = &told{"control: the server found a disk full: make room, then try again", syscall.ENOSPC}
)

// sentinel returns what a kind of failure stands for, or nil.
func sentinel(k operate.Kind) error {
	return map[operate.Kind]error{
		operate.KindInProgress:    handoff.ErrInProgress,
		operate.KindNotReady:      handoff.ErrNotReady,
		operate.KindNotStarted:    handoff.ErrStart,
		operate.KindSuccessorDied: handoff.ErrSuccessorDied,
		operate.KindTimeout:       handoff.ErrTimeout,
		operate.KindAborted:       handoff.ErrAborted,
		operate.KindRolledBack:    handoff.ErrRolledBack,
		operate.KindPeerRefused:   handoff.ErrPeerRefused,
		operate.KindVersion:       handoff.ErrVersion,
		operate.KindProtocol:      handoff.ErrProtocol,
		operate.KindTransfer:      handoff.ErrTransfer,
		operate.KindCommitted:     handoff.ErrCommitted,
		operate.KindClosed:        handoff.ErrClosed,
		operate.KindUnsupported:   handoff.ErrUnsupported,
		operate.KindNoSpace:       ErrNoSpace,
	}[k]
}

// told is an error in words of its own, or the server's, that matches another.
type told struct {
	text string
	is   error // nil if we know none
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.is }

// failureError makes an error of what the server says.
func failureError(f *operate.Failure) error {
	text := f.Text
	if text == "" {
		text = "control: the server gives no reason"
	}
	err := &told{text, sentinel(f.Kind)}
	if !f.Upgrade && f.PID == 0 && len(f.Stderr) == 0 { // an older server does not say the first
		return err
	}
	return &handoff.UpgradeError{PID: f.PID, Stderr: f.Stderr, Outcome: handoff.Outcome(f.Outcome), Err: err}
}

// refusalError makes an error of a refusal.
func refusalError(m *wire.Refuse) error {
	switch m.Code {
	case wire.CodeVersion:
		return fmt.Errorf("%w: use the tool that belongs to the server's release: %s", handoff.ErrVersion, m.Reason)
	case wire.CodePeer:
		return &told{m.Reason, handoff.ErrPeerRefused}
	case wire.CodeUnsupported:
		return fmt.Errorf("%w by this server: it is older than this tool: %s", handoff.ErrUnsupported, m.Reason)
	case wire.CodeClosed:
		return fmt.Errorf("%w: %s", handoff.ErrClosed, m.Reason)
	}
	return fmt.Errorf("control: refused: %s", m.Reason)
}
