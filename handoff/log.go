package handoff

import (
	"log/slog"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/slogger"
)

// SlogLogger makes an [hclog.Logger] that writes to l, for Config.Logger.
// Trace becomes a level below debug. The handler of l chooses the level:
// SetLevel has no effect.
func SlogLogger(l *slog.Logger) hclog.Logger { return slogger.New(l) }
