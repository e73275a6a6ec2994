package handoffhttp

import (
	"crypto/tls"
	"net"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handofftls"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// A listener accepts connections for a Server, in wrappers that can move.
type listener struct {
	inner  net.Listener
	source net.Listener // inner, without the tracking of package handoff, and with the Server's under TLS
	srv    *Server
	moves  bool               // it is the Upgrader's, which ends it
	tls    *handofftls.Config // of connections that move; nil without TLS, or if they don't
	name   string             // under which its connections move; "" if they don't
	taken  atomic.Bool        // by the successor

	looping atomic.Bool // a goroutine accepts, or serves what was accepted

	feedOnce sync.Once
	feed     chan net.Conn // to net/http, by way of feedListener
}

func newListener(s *Server, ln net.Listener) *listener {
	l := &listener{inner: ln, source: untracked(ln), srv: s, feed: make(chan net.Conn)}
	if v := reflect.ValueOf(ln); v.Type() == tlsListener && !v.IsNil() {
		// A copy: the listener is the program's.
		under := reflect.New(v.Type().Elem())
		under.Elem().Set(v.Elem())
		f := under.Elem().FieldByName("Listener")
		if below, ok := f.Interface().(net.Listener); ok {
			f.Set(reflect.ValueOf(&underTLS{below, untracked(below), l}))
			l.source = under.Interface().(net.Listener)
		}
	}
	return l
}

// untracked returns ln without the tracking of package handoff.
func untracked(ln net.Listener) net.Listener {
	if up, ok := ln.(*handoff.Listener); ok {
		return up.Untracked()
	}
	return ln
}

// tlsListener is the type of what [tls.NewListener] returns: a struct of the listener that
// it embeds and a configuration.
var tlsListener = reflect.TypeOf(tls.NewListener(nil, nil))

// underTLS is the listener below a TLS listener of the program's. net/http must get a
// *[tls.Conn], so the wrapper of the Server is on the connection in it, as with
// [Server.ServeTLS].
type underTLS struct {
	net.Listener
	source net.Listener
	l      *listener
}

func (u *underTLS) Accept() (net.Conn, error) {
	nc, err := u.source.Accept()
	if err != nil {
		return nil, err
	}
	if c := newConn(u.l.srv, u.l, nc); c != nil {
		return c.self, nil
	}
	return nc, nil
}

// moveLocked has the connections of l move to a successor, and come from a predecessor.
func (s *Server) moveLocked(l *listener) {
	name := connsPrefix + l.address()
	if l.tls != nil {
		name = l.tls.Name(tlsConnsPrefix + l.address())
	}
	from, err := s.up.Conns(name)
	if err != nil {
		s.log.Warn("connections of this listener will not move", "listener", name, "error", err)
		return
	}
	l.name = name
	s.loops++
	s.wg.Go(func() { l.receive(from) }) // ends with Done
}

// isUpgraders reports whether a listener is an Upgrader's: a successor has the same.
func isUpgraders(ln net.Listener) bool {
	_, yes := ln.(*handoff.Listener)
	return yes
}

// connsPrefix begins the names under which connections move. What their state
// looks like is part of it.
const connsPrefix = "http/1 "

// Accept waits for the next connection, which the caller owns. Linger waits from the
// first call of Accept until a call fails: net/http announces an accepted connection to
// the Server before the next call, not earlier.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.accept()
	if err != nil {
		return nil, err
	}
	if c := newConn(l.srv, l, nc); c != nil {
		return c.self, nil
	}
	return nc, nil
}

// accept is Accept, without the wrapper.
func (l *listener) accept() (net.Conn, error) {
	l.srv.hookHTTP2()
	if !l.looping.Swap(true) {
		l.srv.loop(1)
	}
	nc, err := l.source.Accept()
	if err != nil {
		err = failure.Again(err)
		if t, ok := err.(interface{ Temporary() bool }); ok && t.Temporary() {
			return nil, err // net/http calls again
		}
		if l.looping.Swap(false) {
			l.srv.loop(-1)
		}
		return nil, err
	}
	return nc, nil
}

// address is a part of the name under which connections move.
func (l *listener) address() string { return l.Addr().Network() + " " + l.Addr().String() }

// Close closes the listener that was wrapped.
func (l *listener) Close() error { return l.inner.Close() }

// Addr returns the address of the listener that was wrapped.
func (l *listener) Addr() net.Addr { return l.inner.Addr() }

// give hands a connection to net/http, and reports whether that takes it. The
// first one has a Serve begin for those that were not accepted here.
func (l *listener) give(nc net.Conn) bool {
	s := l.srv
	l.feedOnce.Do(func() {
		s.wg.Go(func() { _ = s.srv.Serve(&feedListener{l}) }) // ends with ended
	})
	select {
	case l.feed <- nc:
		return true
	case <-s.ended:
		return false
	}
}

// receive takes connections from predecessors until this process ends.
func (l *listener) receive(from <-chan handoff.MovedConn) {
	defer l.srv.loop(-1)
	for {
		select {
		case mc := <-from:
			nc, b := mc.Conn, mc.State
			var err error
			if l.tls != nil {
				nc, b, err = l.receiveTLS(mc)
			}
			var st movedState
			if err == nil {
				st, err = decodeState(b)
			}
			if err != nil {
				l.srv.log.Error("closed a connection from a predecessor, because its state is malformed", "listener", l.name, "error", err)
				_ = mc.Conn.Close() // the predecessor has given it up
				continue
			}
			l.readopt(nc, st, 0)
		case <-l.srv.up.Done():
			return
		}
	}
}

// feedListener is a listener's second way into net/http.
type feedListener struct{ l *listener }

func (f *feedListener) Accept() (net.Conn, error) {
	f.l.srv.hookHTTP2()
	select {
	case nc := <-f.l.feed:
		return nc, nil
	case <-f.l.srv.ended:
		return nil, net.ErrClosed
	}
}

func (f *feedListener) Close() error   { return nil }
func (f *feedListener) Addr() net.Addr { return f.l.Addr() }
