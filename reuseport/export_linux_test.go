package reuseport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/probes"
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

// Probe puts a probe into the queue of l, which is alone in its group, and
// returns the client's address. With lost the prober can't find out where it
// came to.
func (l *Listener) Probe(ctx context.Context, lost bool) (netip.AddrPort, error) {
	t, err := l.sock.group.begin(ctx, l.sock, new(Report))
	defer t.end()
	if err != nil {
		return netip.AddrPort{}, err
	}
	own := []*socket{l.sock}
	if err := t.prober.chooseMarks(own); err != nil {
		return netip.AddrPort{}, err
	}
	if lost {
		_ = t.dc.Close()
	}
	all, err := t.prober.send(ctx, own, func(int) int { return 1 }, 1, program{})
	if err == nil {
		all[0].inode = l.sock.inode
	}
	t.prober.end(all)
	if lost != (err != nil) || len(all) == 0 {
		return netip.AddrPort{}, fmt.Errorf("lost %v: %w", lost, err)
	}
	return all[0].client, nil
}

// Probes returns how many probes are known to be in l's queue.
func (l *Listener) Probes() int { return probes.Waiting(l.sock.inode) }

// Drop takes l out of what steering knows, as before a close.
func (l *Listener) Drop() { l.group.local.drop(l.sock) }

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
