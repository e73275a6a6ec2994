package supervisor

import (
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// managerTimeout is how long the service manager may leave its socket full before we
// say so.
const managerTimeout = time.Second

// A manager is the service manager that has started us, systemd, if any has.
type manager struct {
	late sdnotify.Backlog // what it is to be told
	end  chan struct{}    // closed when nobody waits for it any more
}

// tellManager tells the service manager something, in order, as NOTIFY_SOCKET says.
// One that reads nothing is told when it does.
func (s *Supervisor) tellManager(text string) {
	warned := ""
	unheard := func(m sdnotify.Message, err error) {
		if warned != m[0] {
			warned = m[0]
			s.log.Warn("the service manager has not heard", "text", warned, "error", err)
		}
	}
	m := sdnotify.Message{text}
	n, err := sdnotify.New(os.Getenv, managerTimeout)
	switch {
	case err != nil:
		unheard(m, err)
	case n != nil && s.manager.late.Add(m):
		s.wg.Go(func() { s.manager.late.Tell(n, s.manager.end, unheard) }) // ends when all is told, or with manager.end
	}
}
