package handoffhttp

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handofftls"
	"github.com/seed-11c92bf9/baton/handoff/internal/conns"
)

// phase is where net/http stands with a connection.
type phase uint8

const (
	phaseNone     phase = iota // net/http has not spoken of it
	phaseParked                // it has moved and is silent: net/http doesn't know it
	phaseNew                   // http.StateNew
	phaseActive                // http.StateActive: a request is being served
	phaseIdle                  // http.StateIdle: between two requests
	phaseHijacked              // a handler has taken it
	phaseMoving                // on its way to the successor
	phaseClosed
)

// maxBegun is how many bytes of a next request can be in net/http's buffer
// while it waits in Peek(4) (net/http, conn.serve).
const maxBegun = 3

// aLongTimeAgo is a deadline that has passed: it calls a blocked Read back.
var aLongTimeAgo = time.Unix(1, 0)

// A conn is what a Server knows about a connection.
//
// The wrappers tcpConn and unixConn hold one and record net/http's calls in it. That
// distinguishes a Read during which a move is possible from all others. After
// StateIdle, conn.serve sets the read deadline once, waits in Peek(4) of its
// bufio.Reader, and sets the deadline again before it reads a header. So a Read between
// the first and the second deadline is one of Peek's. bufio.Reader.fill passes the free
// rest of its buffer to Read. The length of that rest shows how many bytes are in the
// buffer: the last ones that Read has returned, and all that net/http has read and not
// used. That includes a byte that a background reader has read
// (connReader.backgroundRead), because connReader gives it to bufio before it reads
// again. [probe] verifies all of this before anything moves.
type conn struct {
	srv  *Server
	l    *listener // the listener that accepted it; nil if not through Wrap
	raw  net.Conn  // nil if it isn't ours to move
	self net.Conn  // the wrapper; nil if there is none

	prev, next *conn // in srv.conns, guarded by srv.mu
	listed     bool  // guarded by srv.mu

	mu        sync.Mutex
	outer     net.Conn // what net/http calls the connection: self, or TLS on it
	h2        *http2Conn
	phase     phase
	bound     bool      // can't move: TLS, HTTP/2, or tried and not taken
	gotBytes  bool      // bytes were read from it
	reading   bool      // a Read is in progress
	waiting   bool      // during which a move is possible
	called    bool      // and which was ended by a deadline for the move
	claimed   bool      // Close moves it
	said      bool      // Goodbye was called
	idle      bool      // has had a request
	exact     bool      // the header that is being read ends with the last byte that was read
	deadlines uint8     // calls of SetReadDeadline since StateIdle, up to 2
	strip     uint8     // of the next so many bytes, leading CR and LF are dropped
	tries     uint8     // how often it was not taken
	nlast     uint8     // valid bytes of last
	nbegun    uint8     // valid bytes of begun
	last      [4]byte   // the last bytes that were read
	begun     [4]byte   // read by a predecessor or while parked; Read returns them first
	fills     uint16    // of a chunked body's Reads, so many more are of one byte
	left      int64     // bytes of a body that were not read yet; 0 if that isn't known
	deadline  time.Time // for reading, as net/http has set it
	stay      time.Time // parked: it doesn't move before

	since time.Duration // idle, or new, since then, by Server.now
}

// tcpConn is a TCP connection that can move. It has all methods of
// *net.TCPConn, so that net/http finds io.ReaderFrom (sendfile, splice),
// CloseWrite and syscall.Conn.
type tcpConn struct {
	*net.TCPConn
	conn
}

// unixConn is a unix connection that can move.
type unixConn struct {
	*net.UnixConn
	conn
}

// newConn wraps nc, or returns nil if that is TLS of the program's own.
func newConn(s *Server, l *listener, nc net.Conn) *conn {
	var c *conn
	switch nc := nc.(type) {
	case *net.TCPConn:
		t := &tcpConn{TCPConn: nc}
		t.self, c, t.raw = t, &t.conn, nc
	case *net.UnixConn:
		u := &unixConn{UnixConn: nc}
		u.self, c, u.raw = u, &u.conn, nc
	case *handofftls.Conn:
		t := &tlsConn{Conn: nc}
		t.self, c, t.raw = t, &t.conn, nc
	case interface{ ConnectionState() tls.ConnectionState }:
		return nil // net/http has to find it
	default:
		o := &otherConn{Conn: nc}
		o.self, c, o.bound = o, &o.conn, true
		conns.Untrack(nc) // this server counts it
	}
	c.srv, c.l, c.outer = s, l, c.self
	return c
}

func (t *tcpConn) Read(p []byte) (int, error)         { return t.read(p) }
func (t *tcpConn) Close() error                       { return t.close() }
func (t *tcpConn) SetDeadline(d time.Time) error      { return t.setDeadline(d) }
func (t *tcpConn) SetReadDeadline(d time.Time) error  { return t.setReadDeadline(d) }
func (t *tcpConn) WriteTo(w io.Writer) (int64, error) { return t.writeTo(w, t.TCPConn) }
func (t *tcpConn) NetConn() net.Conn                  { return t.TCPConn }
func (t *tcpConn) tracked() *conn                     { return &t.conn }
func (u *unixConn) Read(p []byte) (int, error)        { return u.read(p) }
func (u *unixConn) Close() error                      { return u.close() }
func (u *unixConn) SetDeadline(d time.Time) error     { return u.setDeadline(d) }
func (u *unixConn) SetReadDeadline(d time.Time) error { return u.setReadDeadline(d) }
func (u *unixConn) NetConn() net.Conn                 { return u.UnixConn }
func (u *unixConn) tracked() *conn                    { return &u.conn }

// read is Read, with the account of what was read.
func (c *conn) read(p []byte) (int, error) {
	c.mu.Lock()
	for asked := false; ; {
		if c.claimed { // net/http may look for the preface of HTTP/2, and then for a header
			c.mu.Unlock()
			return 0, io.EOF
		}
		if c.nbegun > 0 && len(p) > 0 {
			n := copy(p, c.begun[:c.nbegun])
			copy(c.begun[:], c.begun[n:c.nbegun])
			c.nbegun -= uint8(n)
			if n = c.notedLocked(p, n); n > 0 {
				c.mu.Unlock()
				return n, nil
			}
			continue
		}
		c.waiting = c.waitingLocked(len(p))
		if c.waiting && c.l.taken.Load() && c.claimLocked(len(p)) {
			c.mu.Unlock()
			return 0, io.EOF // net/http closes it, quietly
		}
		if c.waiting && c.l.taken.Load() && !asked {
			asked = true
			c.askTLSLocked()
		}
		c.reading = true
		room := c.roomLocked(len(p))
		c.mu.Unlock()
		n, err := c.raw.Read(p[:room])
		c.mu.Lock()
		if c.returnedLocked(n, err) {
			if c.claimLocked(len(p)) {
				c.mu.Unlock()
				return 0, io.EOF
			}
			continue
		}
		if n > 0 {
			if n = c.notedLocked(p, n); n == 0 && err == nil {
				continue
			}
		}
		c.mu.Unlock()
		return n, err
	}
}

// waitingLocked reports whether a Read of net/http's with room for n bytes is
// one in which a move can come.
func (c *conn) waitingLocked(n int) bool {
	if c.bound || c.l == nil || c.l.name == "" {
		return false
	}
	switch c.phase {
	case phaseParked:
		return c.stay.IsZero() || !time.Now().Before(c.stay)
	case phaseNew:
		return !c.gotBytes
	case phaseIdle:
		begun := c.srv.facts.buffer - n
		return c.deadlines == 1 && begun >= 0 && begun <= min(maxBegun, int(c.nlast))
	}
	return false
}

// claimLocked takes the connection away from net/http, which waits in a Read
// with room for n bytes, so that Close moves it.
func (c *conn) claimLocked(n int) bool {
	if !c.waiting || !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		return false // it has timed out anyway, and net/http gets that error
	}
	if !c.canMoveLocked() {
		return false
	}
	if !c.srv.join() { // until depart
		return false
	}
	switch c.phase {
	case phaseNew:
		c.nbegun = 0
	case phaseIdle:
		begun := c.srv.facts.buffer - n
		c.nbegun = uint8(copy(c.begun[:], c.last[int(c.nlast)-begun:c.nlast]))
		c.strip = maxStrip
	}
	c.claimed = true
	return true
}

// returnedLocked is called after each Read of raw's. It reports whether that
// was called back, with nothing read: then the connection can be claimed, or
// else the Read be tried again.
func (c *conn) returnedLocked(n int, err error) bool {
	c.reading = false
	if !c.called {
		return false
	}
	c.called = false
	_ = c.raw.SetReadDeadline(c.deadline) // fails only on a closed connection, which Read reports
	return n == 0 && isTimeout(err)
}

// notedLocked notes that n bytes of p were read, and returns how many of them
// are for net/http.
func (c *conn) notedLocked(p []byte, n int) int {
	c.gotBytes = true
	if c.phase == phaseActive && c.left > 0 {
		c.left -= min(int64(n), c.left)
	}
	n = c.stripLocked(p, n)
	switch {
	case n >= maxBegun:
		copy(c.last[:], p[n-maxBegun:n])
		c.nlast = maxBegun
	case n > 0:
		keep := min(int(c.nlast), maxBegun-n)
		copy(c.last[:], c.last[int(c.nlast)-keep:c.nlast])
		copy(c.last[keep:], p[:n])
		c.nlast = uint8(keep + n)
	}
	return n
}

// stripLocked drops leading line ends, and returns what is left of n bytes. net/http
// drops up to four bytes after a POST (conn.readRequest; RFC 9112 section 2.2 requires
// it in any case). The successor's net/http does not know of a POST in the predecessor.
func (c *conn) stripLocked(p []byte, n int) int {
	for c.strip > 0 && n > 0 {
		if p[0] != '\r' && p[0] != '\n' {
			c.strip = 0
			break
		}
		copy(p, p[1:n])
		c.strip--
		n--
	}
	return n
}

// callBack has a Read that waits for a next request return, if there is one.
// One that begins later sees for itself that connections move.
func (c *conn) callBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading && c.waiting && !c.called && c.l.taken.Load() {
		c.called = true
		_ = c.raw.SetReadDeadline(aLongTimeAgo) // fails only on a closed connection, which Read reports
	}
}

func (c *conn) setReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.deadlines < 2 {
		c.deadlines++
	}
	if c.called {
		return nil // returnedLocked sets it
	}
	return c.raw.SetReadDeadline(t)
}

func (c *conn) setDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.deadlines < 2 {
		c.deadlines++
	}
	if c.called {
		return c.raw.SetWriteDeadline(t)
	}
	return c.raw.SetDeadline(t)
}

// writeTo keeps splice(2) for copies from a hijacked connection.
func (c *conn) writeTo(w io.Writer, from io.WriterTo) (int64, error) {
	var sent int64
	c.mu.Lock()
	if c.nbegun > 0 {
		begun := append([]byte(nil), c.begun[:c.nbegun]...)
		c.nbegun = 0
		c.mu.Unlock()
		n, err := w.Write(begun)
		sent = int64(n)
		if err != nil {
			return sent, err
		}
		c.mu.Lock()
	}
	c.waiting = false
	c.mu.Unlock()
	n, err := from.WriteTo(w)
	return sent + n, err
}

// close is Close: a connection that was claimed goes to the successor.
func (c *conn) close() error {
	c.mu.Lock()
	switch {
	case c.claimed:
		c.claimed, c.phase = false, phaseMoving
		c.mu.Unlock()
		c.srv.depart(c)
		return nil
	case c.phase == phaseMoving:
		c.mu.Unlock()
		return nil // closed twice
	}
	forget := c.phase == phaseHijacked
	c.phase = phaseClosed
	c.mu.Unlock()
	err := c.raw.Close()
	if forget {
		c.srv.forget(c)
	}
	return err
}

// enter notes a state that net/http has announced.
func (c *conn) enter(p phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseMoving || c.phase == phaseClosed {
		return
	}
	c.phase = p
	switch p {
	case phaseIdle:
		c.deadlines, c.idle = 0, true
		c.exact, c.left, c.fills = false, 0, 0
		c.since = c.srv.now()
	case phaseNew:
		c.since = c.srv.now()
	}
}

// isTimeout reports whether err is a deadline's.
func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
