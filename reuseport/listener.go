package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// Listener is a TCP listener that is a member of a SO_REUSEPORT group. Its
// methods may be called from any goroutine, Accept by as many at once as one
// likes.
type Listener struct {
	group *Group
	sock  *socket
	tcp   *net.TCPListener // what it was made from; nil after Bind

	adopted bool        // others may have the socket too
	shared  atomic.Bool // others may use a duplicate of the descriptor

	ln       atomic.Pointer[net.TCPListener] // nil until it listens
	open     chan struct{}                   // closed when it listens, or will never
	accepted atomic.Int64

	accepting sync.RWMutex // read-locked while a connection may be in hand that can be a probe

	mu    sync.Mutex
	bound *os.File // the socket until it listens
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

// Bind is [Listen] without its last step: the address is taken, and the group
// doesn't know of the socket, so no connection can wait in it, until
// [Listener.Listen]. A process that is slow to start, or dies, costs nothing
// that way. On other systems than Linux the error matches
// [errors.ErrUnsupported].
func Bind(ctx context.Context, network, address string, cfg *Config) (*Listener, error) {
	g, err := newGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	return g.Bind(ctx)
}

// Listen makes a listener of [Bind] join its group. From here on it gets its
// share of the connections. On one that listens already it does nothing.
func (l *Listener) Listen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ln.Load() != nil {
		return nil
	}
	if l.bound == nil {
		return ErrClosed
	}
	ln, err := startListening(l.bound, l.group.cfg.Backlog)
	if err != nil {
		return fmt.Errorf("listen on %v: %w", l.Addr(), l.group.explain(err))
	}
	_ = l.bound.Close() // ln has a descriptor of its own
	l.bound = nil
	l.ln.Store(ln)
	close(l.open)
	l.mu.Unlock() // a Steerer asks for the descriptor
	defer l.mu.Lock()
	err = l.group.crew.joined(l.sock)
	if !slices.Contains(l.group.Members(), l) {
		l.group.crew.drop(l.sock) // Close has come meanwhile, maybe before it was there
		return ErrClosed
	}
	return err
}

// Accept waits for the next connection. It fails with [ErrClosed] once the
// listener is closed or drained. While the listener leaves its group, Accept
// goes on returning the connections that the kernel holds for it: Drain waits
// for them, so somebody has to call Accept until it fails. On a listener of
// [Bind] it waits for Listen.
func (l *Listener) Accept() (net.Conn, error) { return conn(l.AcceptTCP()) }

// conn keeps a nil *net.TCPConn from becoming a net.Conn that isn't nil.
func conn(tc *net.TCPConn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return tc, nil
}

// AcceptTCP is [Listener.Accept] with the connection's own type.
func (l *Listener) AcceptTCP() (*net.TCPConn, error) {
	<-l.open
	ln := l.ln.Load()
	if ln == nil {
		return nil, ErrClosed
	}
	for {
		tc, ours, err := l.acceptFrom(ln)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, ErrClosed
			}
			return nil, err
		}
		if !ours {
			l.accepted.Add(1)
		}
		l.group.crew.signal()
		if ours {
			continue
		}
		if err := l.group.cfg.applyKeepAlive(tc); err != nil {
			_ = tc.SetDeadline(noTime) // the peer is gone; its first Read says so
		}
		return tc, nil
	}
}

// acceptFrom is Accept of ln. ours means that it was a probe, which is gone.
func (l *Listener) acceptFrom(ln *net.TCPListener) (tc *net.TCPConn, ours bool, err error) {
	l.accepting.RLock()
	defer l.accepting.RUnlock()
	if tc, err = ln.AcceptTCP(); err != nil {
		return nil, false, err
	}
	ours = probes.arrived(tc, func(c *crew) *socket {
		if c == l.group.crew {
			return l.sock
		}
		return c.byInode(l.sock.inode)
	})
	return tc, ours, nil
}

// Close leaves the group at once. Connections in the accept queue and half-open
// handshakes are reset, unless net.ipv4.tcp_migrate_req is 1; [Listener.Drain]
// loses none. Close unblocks Accept. A second Close returns nil.
func (l *Listener) Close() error {
	if !l.group.left(l) {
		return nil
	}
	l.group.crew.drop(l.sock)
	l.group.crew.idle()
	return l.shut()
}

// shutLeft is the end of a member that the crew has dropped.
func (l *Listener) shutLeft() error {
	if !l.group.left(l) {
		return nil
	}
	return l.shut()
}

func (l *Listener) shut() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.ln.Load(); ln != nil {
		err := ln.Close()
		if l.adopted {
			probes.left(l.sock)
			return err
		}
		l.accepting.Lock() // each Accept has failed or found its probe
		defer l.accepting.Unlock()
		probes.closed(l.sock)
		return err
	}
	f := l.bound
	l.bound = nil
	close(l.open)
	return f.Close()
}

// Drain leaves the group without losing a connection: new ones go to the other
// members, what the kernel holds for this one comes out of Accept, and then it
// closes. See [Report] for the strategies, and for what a lone member does.
//
// When ctx ends first, the listener is closed with what it still has, and the
// error is [ErrIncomplete]. On other systems than Linux the listener is closed
// and the error matches [errors.ErrUnsupported].
func (l *Listener) Drain(ctx context.Context) (Report, error) {
	return l.group.Remove(ctx, l)
}

// Addr returns the address that the listener is bound to.
func (l *Listener) Addr() net.Addr { return l.group.Addr() }

// Group returns the group that l was made in, which for a listener of [Listen]
// or [Bind] has no other members of this process.
func (l *Listener) Group() *Group { return l.group }

// SyscallConn returns access to the descriptor, which stays l's own. Don't
// call shutdown(2) on it: that resets every connection in the queue. Through it
// the descriptor can be duplicated for another process; a duplicate that
// outlives l keeps the socket in the group. See [Listener.Exclusive] if you don't.
func (l *Listener) SyscallConn() (syscall.RawConn, error) {
	l.shared.Store(true)
	return l.raw()
}

// Exclusive says that nobody uses a duplicate of the socket any more. One that
// was adopted, or whose descriptor was asked for, counts as shared: closing it
// may end the socket or not, so Drain can't have the kernel pass it over before,
// and a connection that comes in the instant of the close can be lost, unless
// net.ipv4.tcp_migrate_req is 1. The report says so where the socket has gone
// with it. A duplicate of one that is exclusive gets no connection after a Drain.
func (l *Listener) Exclusive() { l.shared.Store(false) }

// loan is a Listener for this package's own calls, which keep no duplicate.
type loan struct{ *Listener }

func (l loan) SyscallConn() (syscall.RawConn, error) { return l.raw() }

func (l *Listener) raw() (syscall.RawConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ln.Load() != nil:
		return l.ln.Load().SyscallConn()
	case l.bound != nil:
		return l.bound.SyscallConn()
	}
	return nil, ErrClosed
}

func (l *Listener) member() *socket { return l.sock }

// Accepted returns how many connections have come out of Accept.
func (l *Listener) Accepted() int64 { return l.accepted.Load() }
