package sockets

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// A Listener is a listening socket that outlives its process.
type Listener struct {
	inner     atomic.Pointer[netListener]
	addr      net.Addr
	gate      *gate
	accepted  atomic.Uint64
	keepAlive *net.KeepAliveConfig // nil if net does it
	queue     queue[net.Conn]
	closing   func() error
	called    sync.Once     // closes accepting
	accepting chan struct{} // closed by the first call of Accept

	mu     sync.Mutex
	shares int
	ended  bool // the last share was closed
}

// A Share is what the program has of a listener: each Listen of its address returns one.
// The listener is closed with the last of them.
type Share struct {
	*Listener
	turnedAway
}

// Share returns one more share of l, or nil if the last one was closed.
func (l *Listener) Share() *Share {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.shares++
	return &Share{l, turnedAway{gone: make(chan struct{})}}
}

// Accept is Listener's. It returns an error that matches [net.ErrClosed] when s is closed.
func (s *Share) Accept(track func(net.Conn) net.Conn) (net.Conn, error) {
	s.enter()
	defer s.exit()
	return s.accept(track, &s.turnedAway)
}

// Close closes s, and the listener for good if s is its last share. If it is not, Close
// returns when no call of s's Accept is under way any more.
func (s *Share) Close() error {
	if !s.close() {
		return &net.OpError{Op: "close", Net: s.addr.Network(), Addr: s.addr, Err: net.ErrClosed}
	}
	s.mu.Lock()
	s.shares--
	s.ended = s.shares == 0
	last := s.ended
	s.mu.Unlock()
	if last {
		return s.closing()
	}
	s.gate.turnAway(&s.turnedAway)
	return nil
}

// netListener is what *net.TCPListener and *net.UnixListener have in common.
type netListener interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// Accept waits for the next connection. track, if not nil, gets it first and
// returns what Accept returns.
func (l *Listener) Accept(track func(net.Conn) net.Conn) (c net.Conn, err error) {
	return l.accept(track, nil)
}

func (l *Listener) accept(track func(net.Conn) net.Conn, closed *turnedAway) (c net.Conn, err error) {
	l.called.Do(func() { close(l.accepting) })
	err = pass(l.gate, closed, &l.queue, func(offered net.Conn) {
		c = l.prepare(offered, track)
	}, func() error {
		accepted, err := (*l.inner.Load()).Accept()
		if err == nil {
			c = l.prepare(accepted, track)
		}
		return failure.Again(err)
	})
	return c, err
}

// Accepting returns a channel that is closed when Accept has been called.
func (l *Listener) Accepting() <-chan struct{} { return l.accepting }

// prepare counts and tracks c inside of the gate, so that the counts stand after a pause.
func (l *Listener) prepare(c net.Conn, track func(net.Conn) net.Conn) net.Conn {
	l.accepted.Add(1)
	if tc, ok := c.(*net.TCPConn); ok && l.keepAlive != nil {
		_ = tc.SetKeepAliveConfig(*l.keepAlive) // as net does: the peer may be gone
	}
	if track == nil {
		return c
	}
	return track(c)
}

// Addr returns the listener's address.
func (l *Listener) Addr() net.Addr { return l.addr }

// SyscallConn gives access to the descriptor, which stays the Listener's. A
// call of shutdown(2) on it would end the socket for the successor as well.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return (*l.inner.Load()).SyscallConn() }

// SetDeadline sets the time after which Accept returns an error that matches
// [os.ErrDeadlineExceeded]. The zero time means no deadline.
func (l *Listener) SetDeadline(t time.Time) error { return l.gate.setDeadline(t) }

// Accepted returns the number of connections that Accept has returned in this
// process.
func (l *Listener) Accepted() uint64 { return l.accepted.Load() }

// keepAliveOf returns what net.ListenConfig does to accepted connections, nil for
// net's default: net.FileListener forgets the ListenConfig.
func keepAliveOf(lc *net.ListenConfig) *net.KeepAliveConfig {
	switch {
	case lc.KeepAliveConfig.Enable:
		return &lc.KeepAliveConfig
	case lc.KeepAlive > 0:
		return &net.KeepAliveConfig{Enable: true, Idle: lc.KeepAlive}
	case lc.KeepAlive < 0:
		return &net.KeepAliveConfig{}
	}
	return nil
}
