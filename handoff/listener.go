package handoff

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// A Listener is a listening socket that outlives its process. It is a
// [net.Listener] and a [syscall.Conn].
//
// Accept may be called from any number of goroutines. It waits until
// [Upgrader.Ready] was called, it waits while a successor is in probation, and
// after commit it returns an error that matches [net.ErrClosed]. A connection
// that was accepted is always returned to a caller. The connections are those
// of package net, unwrapped.
type Listener struct {
	inner     netListener
	gate      *gate
	accepted  atomic.Uint64
	keepAlive *keepAlive // for a socket that came by inheritance; nil if net does it
	conns     *conns     // for Tracked
	guests    inflow[net.Conn]

	// closing lets the owner of the descriptor, the upgrader's table of
	// sockets, close it: set once before the Listener is handed out.
	closing func() error
}

// netListener is what *net.TCPListener and *net.UnixListener have in common.
type netListener interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// Accept waits for the next connection. The caller owns it.
func (l *Listener) Accept() (net.Conn, error) { return l.accept(nil) }

// Tracked returns l as a listener whose connections are tracked, as by
// [Upgrader.Track], from before Accept returns them: [Upgrader.Shutdown] waits
// for each, however late its goroutine comes to run.
func (l *Listener) Tracked() net.Listener { return trackedListener{l} }

type trackedListener struct{ *Listener }

func (t trackedListener) Accept() (net.Conn, error) { return t.accept(t.conns) }

// accept waits for the next connection and tracks it in all, if not nil.
func (l *Listener) accept(all *conns) (net.Conn, error) {
	for {
		shut := l.gate.enter()
		c, ok := l.guests.pop()
		if shut != nil && !ok {
			return nil, l.opError(shut)
		}
		var err error
		if !ok {
			c, err = l.inner.Accept()
			if err == nil && reuseport.IsProbe(l.inner, c) {
				l.gate.exit()
				continue
			}
		}
		if err == nil {
			// Before exit: after a pause the counts stand.
			l.accepted.Add(1)
			if all != nil {
				c = all.track(c)
			}
		}
		if shut == nil {
			l.gate.exit()
		}
		if err == nil {
			if l.keepAlive != nil {
				l.keepAlive.apply(c)
			}
			return c, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && (l.guests.waiting() || l.gate.again()) {
			continue
		}
		return nil, err
	}
}

// Close closes the listener for good: it will not be handed to a successor.
// Connections that wait in its queue are reset by the kernel, as with any
// listener, unless a successor has the socket. It does not close accepted
// connections.
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

// keepAlive repeats on accepted connections what net.ListenConfig does on
// those of a listener of its own: net.FileListener forgets the ListenConfig.
type keepAlive struct{ config net.KeepAliveConfig }

// newKeepAlive returns nil where lc asks for what net does by default.
func newKeepAlive(lc *net.ListenConfig) *keepAlive {
	switch {
	case lc.KeepAliveConfig.Enable:
		return &keepAlive{lc.KeepAliveConfig}
	case lc.KeepAlive > 0:
		return &keepAlive{net.KeepAliveConfig{Enable: true, Idle: lc.KeepAlive}}
	case lc.KeepAlive < 0:
		return &keepAlive{net.KeepAliveConfig{}}
	}
	return nil
}

func (k *keepAlive) apply(c net.Conn) {
	if t, ok := c.(*trackedConn); ok {
		c = t.Conn
	}
	if tc, ok := c.(*net.TCPConn); ok {
		// net ignores the error here as well (newTCPConn): a peer may be gone.
		_ = tc.SetKeepAliveConfig(k.config)
	}
}
