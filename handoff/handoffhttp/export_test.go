package handoffhttp

import (
	"net"
	"net/http"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// Upgrader is what a Server needs of an Upgrader.
type Upgrader = upgrader

// NewTestServer returns a Server that stands on up, and whose connections can
// move whatever its listeners are.
func NewTestServer(up Upgrader, srv *http.Server, c *Config) *Server {
	s := newServer(up, srv, c)
	s.canMove = func(net.Listener) bool { return true }
	s.hold = func(map[string]uint64) {}
	return s
}

// Probe returns the size of the buffer of net/http's server.
func Probe() (int, error) {
	f, err := probe()
	return f.buffer, err
}

// MovedConn is handoff's.
type MovedConn = handoff.MovedConn

// Open returns the number of open connections.
func (s *Server) Open() int { return s.count() }

// Inner returns the listener that Wrap was given.
func Inner(ln net.Listener) net.Listener { return ln.(*listener).inner }

// State encodes the state of a connection that moves.
func State(idle bool, silent time.Duration, strip uint8, begun string) []byte {
	return movedState{idle: idle, silent: silent, strip: strip, begun: []byte(begun)}.encode()
}

// Heard returns the number of open connections from which bytes were read.
func (s *Server) Heard() int {
	n := 0
	for _, c := range s.all() {
		c.mu.Lock()
		if c.heard {
			n++
		}
		c.mu.Unlock()
	}
	return n
}
