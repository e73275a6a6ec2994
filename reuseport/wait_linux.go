package reuseport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// lookAgain is how long a wait goes on before it looks for changes of the group.
const lookAgain = 20 * time.Millisecond

// migrateAfter is how long a handshake may hold up a member whose handshakes the
// kernel can move. Those that end by themselves are better waited for: a listener
// that closes between the lookup and the end of a handshake
// (inet_csk_reqsk_queue_add) resets it, migration or not.
const migrateAfter = time.Second

// wait returns when the sockets have nothing left: no handshake under way and
// nothing queued. With migrate, handshakes do not count that last for longer than
// migrateAfter. Connections that nobody accepts stop it until ctx ends. If group isn't nil, errChanged tells that the
// group is another one by now, for then the sockets may get traffic again.
func (l *leave) wait(ctx context.Context, sockets []*socket, migrate bool, group []uint32) error {
	l.snapshot(sockets)
	l.busy, l.emptied = time.Now(), time.Time{}
	tick := time.NewTimer(0)
	defer tick.Stop()
	pause := 100 * time.Microsecond
	began := time.Now()
	looked := began
	defer dismiss(sockets)
	for {
		if group != nil && time.Since(looked) > lookAgain {
			if now, _, err := l.group(); err == nil && !slices.Equal(now, group) {
				return errChanged
			}
			looked = time.Now()
		}
		n, err := l.left(sockets, migrate && time.Since(began) > migrateAfter)
		if err != nil {
			return err
		}
		if n == 0 && !l.answering(sockets) {
			return nil
		}
		if n > 0 {
			l.busy, l.emptied = time.Now(), time.Time{}
			dismiss(sockets) // somebody has to read it
		}
		tick.Reset(pause)
		select {
		case <-l.c.moved:
			pause = 100 * time.Microsecond
		case <-tick.C:
			pause = min(2*pause, 4*time.Millisecond)
		case <-ctx.Done():
			if n == 0 {
				return nil // it was to give them time, no more
			}
			l.report.Left += max(0, n-probes.among(sockets))
			return fmt.Errorf("%w: %w", ErrIncomplete, context.Cause(ctx))
		}
	}
}

// snapshot takes the handshakes that are under way. It comes after the grace, so
// that none is missing.
func (l *leave) snapshot(sockets []*socket) {
	n := 0
	switch {
	case l.c.udp:
		l.report.WaitedFor = "no datagram unread, and readers back"
		return
	case l.refs != nil:
		l.report.WaitedFor = "no handshake or queued connection of the member"
		for _, s := range sockets {
			if pending, err := l.refs.pending(s.inode); err == nil {
				n += pending
			}
			if queued, _, err := queueLen(s.conn); err == nil {
				n = max(0, n-queued)
			}
		}
	case l.dc == nil:
		l.report.WaitedFor = "no queued connection"
	default:
		l.report.WaitedFor = "no queued connection, and none of the port's handshakes"
		tuples, err := l.dc.HalfOpen(l.site.query)
		l.under = make(map[diag.Tuple]bool, len(tuples))
		if err != nil {
			l.lossy(err.Error())
			break
		}
		for _, t := range tuples {
			l.under[t] = true
		}
		n = len(tuples)
	}
	l.report.HalfOpen += n
}

// left counts what the sockets still hold, or with queued only what is queued.
func (l *leave) left(sockets []*socket, queued bool) (n int, err error) {
	if l.c.udp {
		return unread(sockets)
	}
	if l.refs != nil && !queued {
		for _, s := range sockets {
			if !slices.Contains(l.c.members(), s) {
				continue // closed meanwhile by its user
			}
			pending, err := l.refs.pending(s.inode)
			switch {
			case errors.Is(err, os.ErrNotExist):
				n++ // a listener went while the table was read: look again
			case err != nil:
				return 0, err
			default:
				n += pending
			}
		}
		return n, nil
	}
	if !queued && len(l.under) > 0 {
		// Before the queues: see diag.Conn.HalfOpen.
		tuples, err := l.dc.HalfOpen(l.site.query)
		if err != nil {
			return 0, err
		}
		still := make(map[diag.Tuple]bool)
		for _, t := range tuples {
			if l.under[t] {
				still[t] = true
			}
		}
		l.under = still
		n = len(still)
	}
	for _, s := range sockets {
		waiting, _, err := queueLen(s.conn)
		if err != nil {
			return 0, err
		}
		n += waiting
	}
	return n, nil
}

// countLeft adds what the sockets hold that are about to close without a wait.
func (l *leave) countLeft(sockets []*socket) {
	own := l.c.members()
	there := slices.DeleteFunc(slices.Clone(sockets), func(s *socket) bool { return !slices.Contains(own, s) })
	n := -probes.among(there)
	for _, s := range there {
		n += l.holds(s)
	}
	l.report.Left += max(0, n)
}

// holds returns how much s holds, as far as the kernel tells.
func (l *leave) holds(s *socket) int {
	if l.c.udp {
		n, _ := unread([]*socket{s}) // fails on a closed socket
		return n
	}
	if l.refs != nil {
		if n, err := l.refs.pending(s.inode); err == nil {
			return n
		}
	}
	n, _, _ := queueLen(s.conn) // likewise
	return n
}

// unread counts the sockets with a datagram that nobody has read.
func unread(sockets []*socket) (n int, err error) {
	for _, s := range sockets {
		has, err := hasUnread(s.conn)
		if err != nil {
			return 0, err
		}
		if has {
			n++
		}
	}
	return n, nil
}

// answerTime is how long readers may take to answer what they have read last.
const answerTime = time.Second

// answering reports, where nothing is unread any more, whether a reader may be
// about to answer from one of the sockets.
func (l *leave) answering(sockets []*socket) bool {
	if !l.c.udp {
		return false
	}
	first := l.emptied.IsZero()
	if first {
		l.emptied = time.Now()
	}
	answering := first          // a count is a moment late: look twice
	for _, s := range sockets { // all of them, which calls their readers
		answering = s.answering(!l.crowded) || answering
	}
	return answering && time.Since(l.emptied) < answerTime
}

// dismiss lets readers go on, where answering holds them.
func dismiss(sockets []*socket) {
	for _, s := range sockets {
		if s.dismiss != nil {
			s.dismiss()
		}
	}
}

// hasUnread reports whether a datagram waits in c.
func hasUnread(c syscall.Conn) (unread bool, err error) {
	err = control(c, func(fd int) error {
		var b [1]byte
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err == nil:
			unread = true
			return nil
		}
		// An ICMP error that waits is reported once; the next look sees the
		// queue.
		unread = true
		return nil
	})
	return unread, err
}
