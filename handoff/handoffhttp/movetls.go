package handoffhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handofftls"
)

// tlsConnsPrefix is connsPrefix of TLS connections.
const tlsConnsPrefix = "https/1 "

// tlsConn is a TLS connection that can move.
type tlsConn struct {
	*handofftls.Conn
	conn
}

func (t *tlsConn) Read(p []byte) (int, error)        { return t.read(p) }
func (t *tlsConn) Close() error                      { return t.close() }
func (t *tlsConn) SetDeadline(d time.Time) error     { return t.setDeadline(d) }
func (t *tlsConn) SetReadDeadline(d time.Time) error { return t.setReadDeadline(d) }
func (t *tlsConn) NetConn() net.Conn                 { return t.Conn }
func (t *tlsConn) tracked() *conn                    { return &t.conn }

// movesTLS returns what TLS connections with cfg need to move, or nil if they don't.
func (s *Server) movesTLS(cfg *tls.Config) *handofftls.Config {
	if !s.cfg.moveTLS || s.cfg.stay {
		return nil
	}
	t := &handofftls.Config{TLS: cfg, ChaCha20Poly1305: s.cfg.chacha}
	if err := t.Probe(); err != nil {
		s.log.Warn("TLS connections will not move", "error", err)
		return nil
	}
	return t
}

// canMoveLocked reports whether TLS lets the connection move now. If it never will, the
// connection ends here.
func (c *conn) canMoveLocked() bool {
	t, ok := c.raw.(*handofftls.Conn)
	if !ok {
		return true
	}
	err := t.CanMove()
	c.bound = errors.Is(err, handofftls.ErrStays)
	return err == nil
}

// askTLSLocked has the Read to come return at once: only when crypto/tls has found no more
// data in this process, its connection knows whether it can move or never will.
func (c *conn) askTLSLocked() {
	if _, ok := c.raw.(*handofftls.Conn); ok && !c.bound {
		c.called = true
		_ = c.raw.SetReadDeadline(aLongTimeAgo) // fails only on a closed connection, which Read reports
	}
}

// send passes a connection on to the successor.
func (c *conn) send(ctx context.Context, state []byte) error {
	if t, ok := c.raw.(*handofftls.Conn); ok {
		return handofftls.Send(ctx, c.srv.up, tlsConnsPrefix+c.l.address(), t, state)
	}
	return c.srv.up.SendConn(ctx, c.l.name, c.raw, state)
}

// receiveTLS makes a TLS connection of one of the predecessor.
func (l *listener) receiveTLS(mc handoff.MovedConn) (net.Conn, []byte, error) {
	c, state, err := handofftls.Receive(mc, l.tls)
	if err != nil {
		return nil, nil, err
	}
	return c, state, nil
}

// A shakingListener makes the handshake before net/http gets a connection: net/http itself
// makes it for a *tls.Conn only, of which it hides what it has read.
type shakingListener struct{ *listener }

// Accept returns a connection that can't move, or an error. Others come to net/http by
// way of feedListener, after their handshake.
func (t *shakingListener) Accept() (net.Conn, error) {
	for {
		nc, err := t.accept()
		if err != nil {
			return nil, err
		}
		switch nc.(type) {
		case *net.TCPConn, *net.UnixConn:
		default:
			if c := newConn(t.srv, t.listener, nc); c != nil {
				nc = c.self
			}
			return tls.Server(nc, t.tls.TLS), nil
		}
		if !t.srv.join() {
			_ = nc.Close() // after the linger
			continue
		}
		t.srv.loop(1) // until net/http has the connection
		go func() {   // ends with the handshake, or with the linger
			defer t.srv.wg.Done()
			defer t.srv.loop(-1)
			defer t.srv.recovered(nc)
			t.shake(nc)
		}()
	}
}

// shake makes a handshake, and hands the connection to net/http.
func (t *shakingListener) shake(nc net.Conn) {
	s := t.srv
	timeout := s.handshakeTimeout()
	if timeout > 0 {
		_ = nc.SetDeadline(time.Now().Add(timeout)) // the handshake returns the error
	}
	c, err := handofftls.Server(s.limit, nc, t.tls)
	if err != nil {
		s.handshakeFailed(nc, err)
		return
	}
	if timeout > 0 {
		_ = nc.SetDeadline(time.Time{}) // Read returns the error
	}
	var given net.Conn
	switch c.ConnectionState().NegotiatedProtocol {
	case "", "http/1.1", "http/1.0": // as net/http's validNextProto has them
		given = newConn(s, t.listener, c).self
	default:
		given = c.Stay() // net/http has the state of HTTP/2
	}
	// Linger waits for the connection also while net/http has not announced it.
	e := s.entry(given, true)
	e.enter(phaseNew)
	if !s.enlist(e, false) || !t.give(given) {
		_ = given.Close() // after the linger
		s.forget(e)
	}
}

// handshakeFailed does what net/http does.
func (s *Server) handshakeFailed(nc net.Conn, err error) {
	reason := err.Error()
	var re tls.RecordHeaderError
	if errors.As(err, &re) && re.Conn != nil {
		switch string(re.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
			_, _ = io.WriteString(nc, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n") // it ends anyway
			reason = "client sent an HTTP request to an HTTPS server"
		}
	}
	s.printf("http: TLS handshake error from %s: %v", nc.RemoteAddr(), reason)
	_ = nc.Close() // the peer has got the error or is gone
}

// printf writes into the http.Server's ErrorLog.
func (s *Server) printf(format string, args ...any) {
	if s.srv.ErrorLog != nil {
		s.srv.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

// recovered is deferred: a callback of the program's TLS configuration that panics ends its
// connection, as with net/http, and not the process.
func (s *Server) recovered(nc net.Conn) {
	if err := recover(); err != nil {
		if err != http.ErrAbortHandler {
			s.printf("http: panic serving %v: %v\n%s", nc.RemoteAddr(), err, debug.Stack())
		}
		_ = nc.Close() // it ends anyway
	}
}

// handshakeTimeout is http.Server's, which is not exported.
func (s *Server) handshakeTimeout() time.Duration {
	var least time.Duration
	for _, d := range []time.Duration{s.srv.ReadHeaderTimeout, s.srv.ReadTimeout, s.srv.WriteTimeout} {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}
