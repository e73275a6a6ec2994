package handoffhttp

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"syscall"
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

// Lingers reports whether the linger has begun.
func (s *Server) Lingers() bool { return s.lingers.Load() }

// WrapTLS does what ServeTLS does before it serves: it returns what Wrap would, and what
// ServeOn serves.
func (s *Server) WrapTLS(ln net.Listener) (wrapped, secure net.Listener, err error) {
	return s.listenTLS(ln, "", "")
}

// ServeOn serves on what Wrap or WrapTLS have returned.
func (s *Server) ServeOn(wrapped, secure net.Listener) error {
	return s.serve(wrapped.(*listener), secure)
}

// Inner returns the listener that Wrap was given.
func Inner(ln net.Listener) net.Listener { return ln.(*listener).inner }

// State encodes the state of a connection that moves.
func State(idle bool, silent time.Duration, strip uint8, begun string) []byte {
	return movedState{idle: idle, silent: silent, strip: strip, begun: []byte(begun)}.encode()
}

// Begun returns the number of open connections from which bytes were read.
func (s *Server) Begun() int {
	n := 0
	for _, c := range s.all() {
		c.mu.Lock()
		if c.gotBytes {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// DecodeState decodes what State encodes.
func DecodeState(b []byte) (idle bool, silent time.Duration, strip uint8, begun string, err error) {
	st, err := decodeState(b)
	return st.idle, st.silent, st.strip, string(st.begun), err
}

// Tickets are session ticket keys with a clock of the test's.
type Tickets struct{ t *tickets }

// NewTickets returns the keys that b has, on top of cfg.
func NewTickets(cfg *tls.Config, b []byte, now func() time.Time) (*Tickets, error) {
	keys, err := decodeTicketKeys(b)
	if err != nil {
		return nil, err
	}
	t := &tickets{cfg: cfg, now: now, keys: keys}
	t.refresh()
	return &Tickets{t}, nil
}

// Refresh makes a new key if it is time.
func (t *Tickets) Refresh() { t.t.refresh() }

// Encode returns what a successor gets.
func (t *Tickets) Encode() []byte { return t.t.encode() }

// Frames returns the kinds and streams of the frames in the chunks, and whether
// the last one is complete.
func Frames(chunks ...[]byte) (got []string, between bool) {
	f := frames{header: func(h frameHeader, ping [8]byte) {
		got = append(got, fmt.Sprintf("%d/%d %d %x", h.kind, h.flags, h.stream, ping))
	}}
	for _, c := range chunks {
		f.pass(c)
	}
	return got, f.between()
}

// Noted has a connection read chunks, of which up to strip line ends at their
// begin may be dropped. It returns what net/http is given of them, and the last
// bytes of that.
func Noted(strip uint8, chunks ...[]byte) (given, last []byte) {
	c := conn{strip: strip}
	for _, chunk := range chunks {
		p := bytes.Clone(chunk)
		if len(p) > 0 {
			given = append(given, p[:c.notedLocked(p, len(p))]...)
		}
	}
	return given, c.last[:c.nlast]
}

// CallBackRace has a Read of nc called back at the moment at which it returns
// with what arrive sends.
func CallBackRace(nc net.Conn, arrive func(raw syscall.Conn)) {
	c := nc.(interface{ tracked() *conn }).tracked()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.called = true
	arrive(c.raw.(syscall.Conn))
	_ = c.raw.SetReadDeadline(aLongTimeAgo)
}

// Waiting reports whether a Read of nc's is under way in which a move can come.
func Waiting(nc net.Conn) bool {
	c := nc.(interface{ tracked() *conn }).tracked()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading && c.waiting
}

// Idle returns the number of open connections that are idle.
func (s *Server) Idle() int {
	n := 0
	for _, c := range s.all() {
		c.mu.Lock()
		if c.phase == phaseIdle {
			n++
		}
		c.mu.Unlock()
	}
	return n
}
