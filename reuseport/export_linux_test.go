package reuseport

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pending returns the look at one listener that Drain repeats, and its end.
func Pending(ln *net.TCPListener) (look func() (int, error), end func(), err error) {
	refs, err := openRefs(unix.AF_INET)
	if err != nil {
		return nil, nil, err
	}
	inode, err := inodeOf(ln)
	if err != nil {
		refs.close()
		return nil, nil, err
	}
	return func() (int, error) { return refs.pending(inode) }, refs.close, nil
}

// ListHalfOpen is HalfOpen by sock_diag.
func ListHalfOpen(ln *net.TCPListener) (n int, err error) {
	err = control(ln, func(fd int) error {
		q, err := queryOf(fd)
		if err != nil {
			return err
		}
		n, err = listHalfOpen(q)
		return err
	})
	return n, err
}

// Receive is a read that takes its time after it has its datagram.
func (p *PacketConn) Receive(read func() error) error { return p.receive(read) }

// Answering holds the readers, and reports whether one is missing.
func (p *PacketConn) Answering() bool { return p.reads.answering(true) }

// Dismiss lets them read.
func (p *PacketConn) Dismiss() { p.reads.open() }

// Unshare says that no duplicate of the socket was made by SyscallConn.
func (l *Listener) Unshare() { l.sock.shared.Store(false) }

// Leaving reports whether a member leaves.
func (g *Group) Leaving() bool { return g.local.leaving.Load() > 0 }

// Closed reports whether Drain or Close was called.
func (g *Group) Closed() bool {
	g.local.mu.Lock()
	defer g.local.mu.Unlock()
	return g.local.closed
}

// MoveInTurns is Move with turns of that length.
func MoveInTurns(ctx context.Context, own []syscall.Conn, old []Leaving, limit time.Duration) (Report, error) {
	return move(ctx, own, old, limit)
}

// Steering is what Steer has set, unless another process has changed it since.
func (g *Group) Steering() Steering { return g.local.current() }

// Group is the group that l was made in.
func (l *Listener) Group() *Group { return l.group }
