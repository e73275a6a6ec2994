package handoff

import (
	"errors"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/operator"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// failureOf puts an error into words that cross the wire.
func failureOf(err error) *operator.Failure {
	f := &operator.Failure{Kind: kindOfError(err), Text: err.Error()}
	var ue *UpgradeError
	if errors.As(err, &ue) {
		f.Upgrade, f.PID, f.Text, f.Outcome = true, ue.PID, ue.Err.Error(), string(ue.Outcome)
		f.Stderr = append(f.Stderr, ue.Stderr...) // bounded by capture
	}
	if len(f.Text) > wire.MaxReason {
		f.Text = f.Text[:wire.MaxReason]
	}
	return f
}

// kindOfError finds the sentinel that a tool can branch on.
func kindOfError(err error) operator.Kind {
	for _, k := range []struct {
		err  error
		kind operator.Kind
	}{
		{syscall.ENOSPC, operator.KindNoSpace}, // says more than what came of it
		{ErrInProgress, operator.KindInProgress},
		{ErrNotReady, operator.KindNotReady},
		{ErrStart, operator.KindNotStarted},
		{ErrSuccessorDied, operator.KindSuccessorDied},
		{ErrTimeout, operator.KindTimeout},
		{ErrAborted, operator.KindAborted},
		{ErrRolledBack, operator.KindRolledBack},
		{ErrPeerRefused, operator.KindPeerRefused},
		{ErrVersion, operator.KindVersion},
		{ErrProtocol, operator.KindProtocol},
		{ErrTransfer, operator.KindTransfer},
		{ErrCommitted, operator.KindCommitted},
		{ErrClosed, operator.KindClosed},
		{ErrUnsupported, operator.KindUnsupported},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return operator.KindOther
}
