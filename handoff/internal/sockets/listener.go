package sockets

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A Listener is a listening socket that outlives its process.
type Listener struct {
	inner     netListener
	gate      *gate
	accepted  atomic.Uint64
	keepAlive *net.KeepAliveConfig // nil if net does it
	queue     queue[net.Conn]
	closing   func() error
}

// netListener is what *net.TCPListener and *net.UnixListener have in common.
type netListener interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// Accept waits for the next connection. track, if not nil, gets it first and
// returns what Accept returns.
func (l *Listener) Accept(track func(net.Conn) net.Conn) (net.Conn, error) {
	for {
		shut := l.gate.enter()
		c, ok := l.queue.pop()
		if shut != nil && !ok {
			return nil, l.opError(shut)
		}
		var err error
		if !ok {
			c, err = l.inner.Accept()
		}
		if err == nil {
			// Before exit: after a pause the counts stand.
			l.accepted.Add(1)
			if tc, ok := c.(*net.TCPConn); ok && l.keepAlive != nil {
				_ = tc.SetKeepAliveConfig(*l.keepAlive) // as net does: the peer may be gone
			}
			if track != nil {
				c = track(c)
			}
		}
		if shut == nil {
			l.gate.exit()
		}
		if err == nil {
			return c, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && (l.queue.waiting() || l.gate.again()) {
			continue
		}
		return nil, err
	}
}

// Offer has Accept return c, which another socket has accepted. It reports false,
// and the caller still owns c, if stop is closed before a call of Accept takes it.
func (l *Listener) Offer(c net.Conn, stop <-chan struct{}) bool { return l.queue.push(c, stop) }

// Close closes the listener for good.
func (l *Listener) Close() error { return l.closing() }

// Addr returns the listener's address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// SyscallConn gives access to the descriptor, which stays the Listener's. A
// call of shutdown(2) on it would end the socket for the successor as well.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.inner.SyscallConn() }

// SetDeadline sets the time after which Accept returns an error that matches
// [os.ErrDeadlineExceeded]. The zero time means no deadline.
func (l *Listener) SetDeadline(t time.Time) error { return l.gate.setDeadline(t) }

// Accepted returns the number of connections that Accept has returned in this
// process.
func (l *Listener) Accepted() uint64 { return l.accepted.Load() }

func (l *Listener) opError(err error) error {
	return &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: err}
}

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
