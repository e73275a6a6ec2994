package handoff

import (
	"errors"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// failureOf puts an error into words that cross the wire.
func failureOf(err error) *operate.Failure {
	f := &operate.Failure{Kind: kindOfError(err), Text: err.Error()}
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
func kindOfError(err error) operate.Kind {
	for _, k := range []struct {
		err  error
		kind operate.Kind
	}{
		{syscall.ENOSPC, operate.KindNoSpace}, // says more than what came of it
		{ErrInProgress, operate.KindInProgress},
		{ErrNotReady, operate.KindNotReady},
		{ErrStart, operate.KindNotStarted},
		{ErrSuccessorDied, operate.KindSuccessorDied},
		{ErrTimeout, operate.KindTimeout},
		{ErrAborted, operate.KindAborted},
		{ErrRolledBack, operate.KindRolledBack},
		{ErrPeerRefused, operate.KindPeerRefused},
		{ErrVersion, operate.KindVersion},
		{ErrProtocol, operate.KindProtocol},
		{ErrTransfer, operate.KindTransfer},
		{ErrCommitted, operate.KindCommitted},
		{ErrClosed, operate.KindClosed},
		{ErrUnsupported, operate.KindUnsupported},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return operate.KindOther
}
