package handoff

import (
	"errors"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// failed puts an error into an answer.
func failed(err error) *operate.Failure {
	f := &operate.Failure{Reason: failure.Of(err), Text: err.Error()}
	var ue *UpgradeError
	if errors.As(err, &ue) {
		f.Upgrade, f.PID, f.Text, f.Outcome = true, ue.PID, ue.Err.Error(), string(ue.Outcome)
		f.Stderr = append(f.Stderr, ue.Stderr...) // bounded by capture
	}
	if len(f.Text) > wire.MaxText {
		f.Text = f.Text[:wire.MaxText]
	}
	return f
}
