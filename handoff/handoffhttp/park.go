package handoffhttp

import (
	"io"
	"net"
	"time"
)

// maxStrip is how many bytes conn.readRequest of net/http drops at most.
const maxStrip = 4

// A connection that is not taken is offered again, in time for a successor's
// successor to have the conversation; after that it ends here.
const (
	maxTries   = 4
	retryAfter = 50 * time.Millisecond // doubled with each try
)

// park waits for the first bytes of a connection that has moved, or that could
// not move, and then gives it to net/http: as a new one, because net/http has no
// other way in. It waits for as many bytes as net/http's Peek(4). Until then the
// idle timeout counts and not, as net/http would have it for a new connection,
// the one for headers, and ReadTimeout doesn't begin. It returns when the
// connection is with net/http, or moves on, or ends.
func (c *conn) park() {
	switch c.wait() {
	case waitBytes:
		if !c.l.give(c.self) {
			c.end()
		}
	case waitClaimed:
		_ = c.close() // which moves it
	case waitOver:
		c.end()
	}
}

// end closes a connection that net/http doesn't know.
func (c *conn) end() {
	_ = c.close() // the peer has got the error or is gone
	c.srv.forget(c)
}

type waitResult uint8

const (
	waitBytes   waitResult = iota // bytes are in begun
	waitClaimed                   // it moves
	waitOver                      // closed by the peer, timed out, or cut
)

// wait waits for bytes, and leaves them in begun.
func (c *conn) wait() waitResult {
	var buf [len(c.begun)]byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		room := len(c.begun) - int(c.nbegun)
		c.waiting = c.waitingLocked(room)
		if c.waiting && c.l.taken.Load() && c.claimLocked(room) {
			return waitClaimed
		}
		if !c.waiting && !c.stay.IsZero() && (c.deadline.IsZero() || c.stay.Before(c.deadline)) {
			_ = c.raw.SetReadDeadline(c.stay) // Read returns the error
		}
		c.reading = true
		c.mu.Unlock()
		n, err := c.raw.Read(buf[:room])
		c.mu.Lock()
		switch {
		case c.returnedLocked(n, err):
			continue
		case n == 0 && isTimeout(err) && c.phase == phaseParked && !c.stay.IsZero():
			c.stay = time.Time{} // try again to move
			_ = c.raw.SetReadDeadline(c.deadline)
			continue
		case c.phase != phaseParked || n == 0 && (err != io.EOF || c.idle || c.nbegun == 0):
			return waitOver
		}
		c.nbegun += uint8(copy(c.begun[c.nbegun:], buf[:c.stripLocked(buf[:], n)]))
		if int(c.nbegun) < len(c.begun) && n > 0 { // net/http answers a first request that ends here
			continue
		}
		c.gotBytes, c.phase, c.stay = true, phaseNone, time.Time{}
		_ = c.raw.SetReadDeadline(time.Time{}) // net/http sets its own
		c.deadline = time.Time{}
		return waitBytes
	}
}

// readopt makes a connection that net/http doesn't have one that is parked, and
// serves it from there.
//
// tries says how often it was not taken by the successor. A successor may be
// short of descriptors for a moment, or about to be replaced itself, so that
// another takes its place.
func (l *listener) readopt(nc net.Conn, st movedState, tries uint8) {
	s := l.srv
	c := newConn(s, l, nc)
	if c == nil {
		_ = nc.Close() // no predecessor sends such
		return
	}
	c.phase, c.idle, c.strip = phaseParked, st.idle, st.strip
	c.tries, c.bound = tries, tries >= maxTries
	if tries > 0 && !c.bound {
		c.stay = time.Now().Add(retryAfter << (tries - 1))
	}
	c.nbegun = uint8(copy(c.begun[:], st.begun))
	c.nbegun = uint8(c.stripLocked(c.begun[:], int(c.nbegun)))
	c.since = s.now() - st.silent
	limit := s.readHeaderTimeout()
	if st.idle {
		limit = s.idleTimeout()
	}
	if limit > 0 {
		c.deadline = time.Now().Add(limit - st.silent)
	}
	if err := c.raw.SetReadDeadline(c.deadline); err != nil || !s.enlist(c, true) {
		_ = nc.Close() // too late
		if tries > 0 {
			s.mu.Lock()
			s.late++
			s.mu.Unlock()
		}
		return
	}
	go func() { // ends with bytes, with a move, or when Linger closes it
		defer s.wg.Done()
		c.park()
	}()
}

// state encodes what a successor needs to know about a claimed connection.
func (c *conn) state() movedState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return movedState{idle: c.idle, silent: c.srv.now() - c.since, strip: c.strip, begun: append([]byte(nil), c.begun[:c.nbegun]...)}
}

// idleTimeout is http.Server's, which is not exported.
func (s *Server) idleTimeout() time.Duration {
	if s.srv.IdleTimeout != 0 {
		return s.srv.IdleTimeout
	}
	return s.srv.ReadTimeout
}

// readHeaderTimeout is http.Server's, which is not exported.
func (s *Server) readHeaderTimeout() time.Duration {
	if s.srv.ReadHeaderTimeout != 0 {
		return s.srv.ReadHeaderTimeout
	}
	return s.srv.ReadTimeout
}
