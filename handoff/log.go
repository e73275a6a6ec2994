package handoff

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/slogger"
)

// SlogLogger makes an [hclog.Logger] that writes to l, for Config.Logger.
// Trace becomes a level below debug. The handler of l chooses the level:
// SetLevel has no effect.
func SlogLogger(l *slog.Logger) hclog.Logger { return slogger.New(l) }

// notice writes a line to standard error where Config has no Logger.
func (u *Upgrader) notice(text string) {
	if u.cfg.notices {
		_, _ = fmt.Fprintf(os.Stderr, "baton: pid %d: %s\n", os.Getpid(), oneLine(text)) // there is no other place
	}
}

// remind says after a while that the first process has not called Ready: its clients
// wait, and nothing else shows why.
func (u *Upgrader) remind() {
	t := time.NewTimer(u.cfg.ReadyTimeout)
	defer t.Stop()
	select {
	case <-t.C:
		if u.life().Phase == lifecycle.Starting {
			text := fmt.Sprintf("Ready was not called within %v: until then no client gets an answer", u.cfg.ReadyTimeout)
			u.log.Warn(text)
			u.notice(text)
		}
	case <-u.done:
	}
}
