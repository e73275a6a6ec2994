package reuseport

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Listener is a TCP listener that is a member of a SO_REUSEPORT group. Its
// methods may be called from any goroutine, Accept by as many at once as one
// likes.
type Listener struct {
	group *Group
	sock  *socket
	tcp   *net.TCPListener
}

// Listen returns a listener on address that is in the SO_REUSEPORT group of that
// address: other processes of the same effective user, and this one, can have
// further members. network is tcp, tcp4 or tcp6. ctx bounds the resolution of
// address, nothing later. The caller closes the listener, with Drain or Close.
//
// An address whose sockets can't be joined gives [ErrForeign].
func Listen(ctx context.Context, network, address string, cfg *Config) (*Listener, error) {
	g, err := newGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	return g.Add(ctx)
}

// Accept waits for the next connection. It fails with [ErrClosed] once the
// listener is closed or drained. While the listener leaves its group, Accept
// returns the connections that the kernel still holds for it: Drain waits for
// them, so call Accept until it fails. The connection is a *[net.TCPConn].
func (l *Listener) Accept() (net.Conn, error) {
	tc, err := l.tcp.AcceptTCP()
	if err != nil {
		if errors.Is(err, net.ErrClosed) {
			return nil, ErrClosed
		}
		return nil, err
	}
	l.sock.count.Add(1)
	l.sock.group.signal()
	return tc, nil
}

// Close leaves the group at once. Connections in the accept queue and half-open
// handshakes are reset, unless net.ipv4.tcp_migrate_req is 1; [Listener.Drain]
// loses none. Close unblocks Accept. A second Close returns nil.
func (l *Listener) Close() error { return l.sock.group.closeMember(l.sock) }

// Drain leaves the group without losing a connection: new ones go to the other members,
// Accept returns those that the kernel holds for this one, and then Drain closes it. See
// [Strategy] for the ways to do so, and for a member that is alone in its group.
//
// If ctx ends first, Drain closes the listener with the connections that it still has,
// and returns [ErrIncomplete]. On other systems than Linux, Drain closes the listener and
// returns an error that matches [errors.ErrUnsupported].
func (l *Listener) Drain(ctx context.Context) (Report, error) { return l.group.Remove(ctx, l) }

// Addr returns the address that the listener is bound to.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// SyscallConn returns access to the descriptor, which stays l's own. Don't
// call shutdown(2) on it: that resets every connection in the queue.
//
// From the call on, l counts as shared: there may be a duplicate of the socket, in this
// process or in another, that outlives l and keeps the socket in the group. So Drain
// can't make the kernel ignore it before the close: a connection that arrives in the
// instant of the close can be lost, and the report says so. Set options in
// [Config.Control] instead. The functions of this package that take a [syscall.Conn] make
// no duplicate.
func (l *Listener) SyscallConn() (syscall.RawConn, error) {
	l.sock.shared.Store(true)
	return l.tcp.SyscallConn()
}

// Accepted returns how many connections have come out of Accept.
func (l *Listener) Accepted() int64 { return l.sock.count.Load() }

func (l *Listener) member() *socket { return l.sock }
