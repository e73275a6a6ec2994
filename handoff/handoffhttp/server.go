package handoffhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handofftls"
	"github.com/seed-11c92bf9/baton/handoff/internal/conns"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// upgrader is what a Server needs of a handoff.Upgrader.
type upgrader interface {
	Done() <-chan struct{}
	LingerExpired() <-chan struct{}
	Takes(name string) bool
	SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error
	Conns(name string) (<-chan handoff.MovedConn, error)
}

// A Server looks after the connections of an [http.Server] and ends them, or
// moves them to the successor, without losing a request. Its methods may be
// called from several goroutines.
type Server struct {
	up    upgrader          // nil for a server that has none
	whole *handoff.Upgrader // up; nil in tests
	user  *http.Server      // New's: it has the functions of RegisterOnShutdown
	srv   *http.Server      // a copy of user, which serves
	cfg   config
	log   hclog.Logger
	facts facts
	born  time.Time // of now
	// canMove reports whether the connections of a listener can move.
	canMove func(net.Listener) bool
	hold    func(cut map[string]uint64) // ends the hold on up

	// What the user's server had in their place.
	handler     http.Handler
	connState   func(net.Conn, http.ConnState)
	connContext func(context.Context, net.Conn) context.Context

	tlsBase    *tls.Config // srv's, before ServeTLS
	tlsConfigs []*tls.Config

	http2     sync.Once
	ending    sync.Once     // Config.Delay
	closes    atomic.Bool   // responses end their connections: the end has begun
	lingers   atomic.Bool   // the linger has begun
	lingering chan struct{} // closed when it begins
	ended     chan struct{} // closed when it ends: net/http gets nothing more
	limit     context.Context
	expire    context.CancelFunc // ends limit
	closed    context.Context    // ended by Close
	cutNow    context.CancelCauseFunc
	sending   chan struct{} // holds one for each SendConn under way
	linger    sync.Once
	report    *Report
	wg        sync.WaitGroup // of all goroutines but net/http's

	mu        sync.Mutex
	conns     conn               // the head of a ring
	open      int                // its length
	foreign   map[net.Conn]*conn // those that are not wrapped
	listeners []*listener        // all that were wrapped
	loops     int                // goroutines that may bring connections
	none      chan struct{}      // closed when open and loops fall to 0 in the linger
	over      bool               // ended is closed
	begun     bool               // the functions of RegisterOnShutdown are run
	moved     int
	doubted   uint64 // sent to a successor that died with it
	stayed    int    // tried and not taken
	why       string // of the first of them
	late      uint64 // returned from a failed move after the linger, and were closed
	drains    []reuseport.Report
	failed    error // of the drains
}

// New returns a Server that serves with the settings of srv. It copies the fields of srv,
// so that a later change of them has no effect. srv itself serves nothing: use the
// methods of Server in place of its Serve, Shutdown and Close. When the linger begins, the
// Server runs the functions of srv.RegisterOnShutdown, those registered after New
// included. In the context of a request, [http.ServerContextKey] has the copy. A nil
// config means all defaults.
//
// With an Upgrader, [handoff.Upgrader.Shutdown] waits for [Server.Linger].
func New(srv *http.Server, c *Config) *Server {
	if c == nil || c.Upgrader == nil {
		return newServer(nil, srv, c)
	}
	s := newServer(c.Upgrader, srv, c)
	s.whole = c.Upgrader
	s.hold = s.whole.Hold(s.count)
	if s.cfg.delay > 0 {
		s.whole.BeforeStop(s.delay)
	}
	return s
}

// copyServer returns a server with the exported fields of srv.
func copyServer(srv *http.Server) *http.Server {
	c := new(http.Server)
	from, to := reflect.ValueOf(srv).Elem(), reflect.ValueOf(c).Elem()
	for i := range from.NumField() {
		if from.Type().Field(i).IsExported() {
			to.Field(i).Set(from.Field(i))
		}
	}
	return c
}

func newServer(up upgrader, user *http.Server, c *Config) *Server {
	srv := copyServer(user)
	s := &Server{
		up: up, user: user, srv: srv, cfg: newConfig(c), born: time.Now(), hold: func(map[string]uint64) {},
		handler: srv.Handler, connState: srv.ConnState, connContext: srv.ConnContext,
		sending:   make(chan struct{}, maxSending),
		lingering: make(chan struct{}),
		ended:     make(chan struct{}),
		foreign:   make(map[net.Conn]*conn),
	}
	s.log = s.cfg.logger
	user.RegisterOnShutdown(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.begun {
			s.log.Error("Shutdown of the http.Server that was given to New ends nothing: call Server.Shutdown")
		}
	})
	s.limit, s.expire = context.WithCancel(context.Background())
	s.closed, s.cutNow = context.WithCancelCause(context.Background())
	s.conns.prev, s.conns.next = &s.conns, &s.conns
	if s.handler == nil {
		s.handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(s.serveHTTP)
	srv.ConnState = s.onState
	srv.ConnContext = s.onContext
	if base := srv.BaseContext; base != nil {
		srv.BaseContext = func(ln net.Listener) context.Context {
			switch l := ln.(type) {
			case *listener:
				ln = l.inner
			case *feedListener:
				ln = l.l.inner
			case *shakingListener:
				ln = l.inner
			}
			return base(ln)
		}
	}
	if s.cfg.stay = s.cfg.stay || up == nil; !s.cfg.stay {
		var err error
		if s.facts, err = probe(); err != nil {
			s.log.Warn("connections will not move", "error", err)
			s.cfg.stay = true
		}
	}
	s.canMove = isUpgraders
	return s
}

// Wrap returns a listener for [Server.Serve] whose connections can move to a successor
// that has wrapped a listener of the same address. Serve calls Wrap itself. Call Wrap, and
// before [handoff.Upgrader.Ready], only if Serve may begin after Ready. ln is a
// [handoff.Listener], or a listener that wraps one and returns connections of package net:
// others don't move. The connections of a TLS listener can't move: use [Server.ServeTLS].
//
// A connection of a wrapped listener has the methods of *net.TCPConn or *net.UnixConn, and
// NetConn, which returns the *net.TCPConn or *net.UnixConn.
func (s *Server) Wrap(ln net.Listener) net.Listener { return s.wrap(ln, false) }

func (s *Server) wrap(ln net.Listener, secure bool) *listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrapLocked(ln, secure, nil)
}

// wrapLocked wraps ln, for TLS if secure, whose connections move if t is not nil.
func (s *Server) wrapLocked(ln net.Listener, secure bool, t *handofftls.Config) *listener {
	if l, ok := ln.(*listener); ok && l.srv == s {
		return l
	}
	l := newListener(s, ln)
	l.tls = t
	s.listeners = append(s.listeners, l)
	if l.moves = s.up != nil && s.canMove(ln); l.moves && (!secure || t != nil) && !s.cfg.stay {
		s.moveLocked(l)
	}
	return l
}

// Serve accepts connections on ln and serves them, as [http.Server.Serve] does. It
// returns [http.ErrServerClosed] once Shutdown has begun or the Upgrader is done, else
// the error that ended it. It doesn't linger: wait for [Server.Shutdown] or [Server.Linger]
// before the program ends. Call Serve or Wrap before [handoff.Upgrader.Ready] to get a
// predecessor's connections.
func (s *Server) Serve(ln net.Listener) error {
	l := s.wrap(ln, false)
	return s.serve(l, l)
}

// serve serves on ln, which is l or stands on it.
func (s *Server) serve(l *listener, ln net.Listener) error {
	if s.lingers.Load() && !l.moves {
		return errors.Join(http.ErrServerClosed, l.Close()) // begin may have been before wrap
	}
	err := s.srv.Serve(ln)
	if s.lingers.Load() || s.up != nil && isClosed(s.up.Done()) {
		return http.ErrServerClosed
	}
	return err
}

// onContext is srv's ConnContext.
func (s *Server) onContext(ctx context.Context, nc net.Conn) context.Context {
	if s.connContext != nil {
		if ctx = s.connContext(ctx, usersConn(nc)); ctx == nil {
			return nil // net/http complains
		}
	}
	if c := s.entry(nc, true); c != nil {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// usersConn returns what hooks of the program get for a connection: what its listener
// has returned, if that is a type of its own.
func usersConn(nc net.Conn) net.Conn {
	if h2, ok := nc.(interface{ secured() net.Conn }); ok {
		nc = h2.secured()
	}
	if o, ok := nc.(*otherConn); ok {
		nc = o.Conn
	}
	return nc
}

// connKey is the key of a *conn in the context of a request.
type connKey struct{}

// Lingering returns a channel that is closed when the server of a request begins to
// linger. A handler with a long response, or with a connection that it has hijacked,
// should end then. ctx is the request's. For a request of a server that is none of this
// package, Lingering returns nil, so that a receive waits for ever.
func Lingering(ctx context.Context) <-chan struct{} {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		return c.srv.lingering
	}
	return nil
}

// serveHTTP is srv's handler.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if s.closes.Load() {
		c, ok := r.Context().Value(connKey{}).(*conn)
		if !ok || c.ends() {
			// net/http closes the connection after this response; on HTTP/2 it
			// sends GOAWAY.
			w.Header().Set("Connection", "close")
		} else {
			c.expect(r.ContentLength)
		}
	}
	s.handler.ServeHTTP(w, r)
}

// ends reports whether the connection has to end with the response to come.
func (c *conn) ends() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.h2 != nil {
		return false // GOAWAY is sent by ourselves
	}
	return c.bound || c.l == nil || !c.l.taken.Load()
}

// onState is srv's ConnState.
func (s *Server) onState(nc net.Conn, st http.ConnState) {
	c := s.entry(nc, st == http.StateNew)
	if c != nil {
		switch st {
		case http.StateNew:
			c.mu.Lock()
			if c.outer = nc; nc != c.self {
				c.bound = true // TLS, or a wrapper around ours
			}
			c.mu.Unlock()
			c.enter(phaseNew)
			s.enlist(c, false)
		case http.StateActive:
			c.enter(phaseActive)
		case http.StateIdle:
			c.enter(phaseIdle)
		case http.StateHijacked:
			c.enter(phaseHijacked)
			if c.self == nil {
				s.forget(c) // its end can't be seen
			} else if s.lingers.Load() {
				s.goodbye(c)
			}
		case http.StateClosed:
			s.forget(c)
		}
	}
	if s.connState == nil {
		return
	}
	s.connState(usersConn(nc), st)
}

// entry returns what is known of nc. A connection that is not wrapped is made
// known if it is new.
func (s *Server) entry(nc net.Conn, isNew bool) *conn {
	if t, ok := nc.(*tcpConn); ok && t.srv == s {
		return &t.conn // twice a request: without a look into tables of interfaces
	}
	for inner := nc; inner != nil; {
		switch t := inner.(type) {
		case interface{ tracked() *conn }:
			if c := t.tracked(); c.srv == s {
				return c
			}
			return nil // of another server
		case interface{ NetConn() net.Conn }:
			inner = t.NetConn()
			continue
		}
		break
	}
	if !reflect.TypeOf(nc).Comparable() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.foreign[nc]
	if c == nil && isNew {
		c = &conn{srv: s, outer: nc, bound: true}
		s.foreign[nc] = c
		conns.Untrack(nc) // this server counts it
	}
	return c
}

// now is the time since New. It asks one clock where time.Now asks two, which
// shows once a request.
func (s *Server) now() time.Duration { return time.Since(s.born) }

// join adds a goroutine to the ones that finish waits for, and reports whether
// it may run.
func (s *Server) join() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.wg.Add(1)
	return true
}
