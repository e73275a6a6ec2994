package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// Pending returns the look at one listener that Drain repeats, and its end.
func Pending(ln *net.TCPListener) (look func() (int, error), end func(), err error) {
	refs, err := openRefs(unix.AF_INET)
	if err != nil {
		return nil, nil, err
	}
	inode, err := inodeOfConn(ln)
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

// ProbeReset returns which member a probe has come to whose connect(2) says that
// it was reset, by Accept or by somebody else.
func ProbeReset(byAccept bool) (ours bool, err error) {
	s := &shot{probe: new(probeSet).add(nil, diag.Tuple{})}
	if byAccept {
		s.landed <- new(socket)
	}
	over, err := s.connected(unix.ECONNRESET)
	if !over {
		err = errors.Join(err, errors.New("the shot is not over"))
	}
	return s.sock != nil, err
}

// Receive is a read that takes its time after it has its datagram.
func (p *PacketConn) Receive(read func() error) error { return p.receive(read) }

// Answering calls the readers together, and reports whether one is missing.
func (p *PacketConn) Answering() bool { return p.answering(true) }

// Dismiss lets them go on.
func (p *PacketConn) Dismiss() { p.roll.end() }

// Probe puts a probe into the queue of l, which is alone in its group, and
// returns the client's address. With lost the prober can't find out where it
// came to.
func (l *Listener) Probe(ctx context.Context, lost bool) (netip.AddrPort, error) {
	c := l.group.crew
	op := &leave{c: c}
	if err := op.open(l.sock); err != nil {
		return netip.AddrPort{}, err
	}
	defer op.close()
	if lost {
		_ = op.dc.Close()
	}
	mark := func(*socket) int { return 1 }
	_, err := op.probe.shoot(ctx, c.members(), mark, new(program), []int{anyIndex})
	if lost != (err != nil) {
		return netip.AddrPort{}, fmt.Errorf("lost %v: %w", lost, err)
	}
	probes.mu.Lock()
	defer probes.mu.Unlock()
	for t, p := range probes.by {
		if p.crew == c {
			return t.Remote, nil
		}
	}
	return netip.AddrPort{}, errors.New("no probe is known")
}

// Probes returns how many probes of l's group are known.
func (l *Listener) Probes() (n int) {
	probes.mu.Lock()
	defer probes.mu.Unlock()
	for _, p := range probes.by {
		if p.crew == l.group.crew {
			n++
		}
	}
	return n
}

// Drop takes l out of what steering knows, as before a close.
func (l *Listener) Drop() { l.group.crew.drop(l.sock) }

// Leaving reports whether a member leaves.
func (g *Group) Leaving() bool { return g.crew.leaving.Load() > 0 }

// Closed reports whether Drain or Close was called.
func (g *Group) Closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// Joined returns how many sockets of this process are taken to be in the kernel's
// group.
func Joined(g *Group) int { return len(g.crew.members()) }

// MoveInTurns is Move with turns of that length.
func MoveInTurns(ctx context.Context, own []syscall.Conn, old []Leaving, turn time.Duration) (Report, error) {
	return move(ctx, own, old, turn)
}
