package supervisor

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// managerTimeout is how long the service manager may leave its socket full before we
// say so.
const managerTimeout = time.Second

// A manager is the service manager that has started us, systemd, if any has.
type manager struct {
	mu  sync.Mutex
	all []string      // what it is to be told; the first is being sent
	end chan struct{} // closed when nobody waits for it any more
}

// tellManager tells the service manager something, in order, as NOTIFY_SOCKET says.
// One that reads nothing is told when it does.
func (s *Supervisor) tellManager(text string) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	m := &s.manager
	m.mu.Lock()
	m.all = append(m.all, text)
	first := len(m.all) == 1
	m.mu.Unlock()
	if first {
		s.wg.Go(s.tellAll) // ends when all is told, or with m.end
	}
}

func (s *Supervisor) tellAll() {
	m := &s.manager
	m.mu.Lock()
	text := m.all[0]
	m.mu.Unlock()
	for warned := ""; ; {
		err := sendManager(text)
		if err != nil && warned != text {
			warned = text
			s.log.Warn("the service manager has not heard", "text", text, "error", err)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-m.end:
				return
			default:
				continue
			}
		}
		m.mu.Lock()
		m.all = m.all[1:]
		if len(m.all) == 0 {
			m.mu.Unlock()
			return
		}
		text = m.all[0]
		m.mu.Unlock()
	}
}

func sendManager(text string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close() // sent, or not
	if err := c.SetWriteDeadline(time.Now().Add(managerTimeout)); err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return err
}
