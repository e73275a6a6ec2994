package supervisor

import (
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// managerTimeout is how long the service manager may leave its socket full before
// the log says so.
const managerTimeout = time.Second

// newManager returns the queue to the service manager that has started this process,
// systemd say, which NOTIFY_SOCKET names; nil where there is none.
func (s *Supervisor) newManager() *sdnotify.Queue {
	n, err := sdnotify.New(os.Getenv, managerTimeout)
	if err != nil {
		s.log.Warn("can't send messages to the service manager", "error", err)
	}
	q := sdnotify.NewQueue(n, func(m sdnotify.Message, err error) {
		s.log.Warn("did not send a message to the service manager", "text", m[0], "error", err)
	})
	q.Start()
	return q
}
