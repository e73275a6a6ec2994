package handoff

import (
	"net"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// A Listener is a listening socket that outlives its process. It is a
// [net.Listener] and a [syscall.Conn].
//
// Accept may be called from any number of goroutines. It waits until the program has
// called [Upgrader.Ready], and while a successor is in probation. After the commit it
// returns an error that matches [net.ErrClosed]. Accept returns each connection that it
// has taken from the queue, also when a pause begins meanwhile.
type Listener struct {
	inner *sockets.Share
	track func(net.Conn) net.Conn
}

// Accept waits for the next connection, which the caller owns. It returns the connection
// in the wrapper that [Upgrader.Track] describes: [Upgrader.Shutdown] waits until it is
// closed, and closes it at the linger limit.
func (l *Listener) Accept() (net.Conn, error) { return l.inner.Accept(l.track) }

// Untracked returns l as a listener whose connections are those of package net,
// without the wrapper. Shutdown does not wait for them: see [Upgrader.Hold].
func (l *Listener) Untracked() net.Listener { return untrackedListener{l} }

type untrackedListener struct{ *Listener }

func (l untrackedListener) Accept() (net.Conn, error) { return l.inner.Accept(nil) }

// Close closes the listener for good: no successor gets it, if Listen has not returned
// another one on the same socket, which goes on. Unless a successor has it
// already, the kernel resets the connections that wait in its queue, as with any
// listener. Close does not close accepted connections.
func (l *Listener) Close() error { return l.inner.Close() }

// Addr returns the listener's address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// SyscallConn gives access to the descriptor, which stays the Listener's. A
// call of shutdown(2) on it would end the socket for the successor as well.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.inner.SyscallConn() }

// SetDeadline sets the time after which Accept returns an error that matches
// [os.ErrDeadlineExceeded]. The zero time means no deadline. Listeners on one socket have
// one deadline.
func (l *Listener) SetDeadline(t time.Time) error { return l.inner.SetDeadline(t) }
