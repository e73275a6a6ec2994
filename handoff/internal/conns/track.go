package conns

import (
	"fmt"
	"net"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// An entry is a tracked connection's place in its Set.
type entry struct {
	set        *Set
	self       net.Conn // the wrapper
	prev, next *entry   // nil when it is not tracked any more
}

// tcpConn has all methods of *net.TCPConn, unixConn those of *net.UnixConn.
type tcpConn struct {
	*net.TCPConn
	entry
}

type unixConn struct {
	*net.UnixConn
	entry
}

// otherConn is a connection that is not one of package net's.
type otherConn struct {
	net.Conn
	entry
}

// Track counts c until it is closed. The result is c in a wrapper with all methods of
// c, if that is a *net.TCPConn or a *net.UnixConn, else with those of net.Conn and
// SyscallConn; NetConn returns c. One that s tracks already is returned as it is.
func (s *Set) Track(c net.Conn) net.Conn {
	if w, ok := c.(wrapper); ok && w.in(s) {
		return c
	}
	switch c := c.(type) {
	case *net.TCPConn:
		t := &tcpConn{TCPConn: c}
		t.track(s, t)
		return t
	case *net.UnixConn:
		t := &unixConn{UnixConn: c}
		t.track(s, t)
		return t
	}
	t := &otherConn{Conn: c}
	t.track(s, t)
	return t
}

func (e *entry) track(s *Set, self net.Conn) {
	e.set, e.self = s, self
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busyLocked()
	s.open++
	last := s.tracked.prev
	e.prev, e.next = last, &s.tracked
	last.next, s.tracked.prev = e, e
}

// untrack ends the tracking, once.
func (e *entry) untrack() {
	s := e.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.next == nil {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	s.open--
	s.doneLocked()
}

// in reports whether the connection is one of s's.
func (e *entry) in(s *Set) bool { return e.set == s }

// wrapper is what Track returns.
type wrapper interface {
	net.Conn
	in(s *Set) bool
	NetConn() net.Conn
	untrack()
}

// Untrack ends the tracking of c, or of a connection in it (NetConn).
func Untrack(c net.Conn) {
	for c != nil {
		if t, ok := c.(wrapper); ok {
			t.untrack()
			return
		}
		in, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = in.NetConn()
	}
}

// Close closes the connection and ends its tracking.
func (t *tcpConn) Close() error {
	t.untrack()
	return t.TCPConn.Close()
}

func (t *unixConn) Close() error {
	t.untrack()
	return t.UnixConn.Close()
}

func (t *otherConn) Close() error {
	t.untrack()
	return t.Conn.Close()
}

// NetConn returns the connection that is tracked.
func (t *tcpConn) NetConn() net.Conn { return t.TCPConn }

func (t *unixConn) NetConn() net.Conn { return t.UnixConn }

func (t *otherConn) NetConn() net.Conn { return t.Conn }

// SyscallConn gives access to the descriptor, if there is one.
func (t *otherConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := t.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("%w: %T has no descriptor", failure.Unsupported, t.Conn)
}
