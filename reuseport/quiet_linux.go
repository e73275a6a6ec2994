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

const (
	// lookAgain is how long a wait lasts before it looks for changes of the
	// group, and no longer waits for the members to get quiet together.
	lookAgain = 20 * time.Millisecond

	// migrateAfter is how long a handshake may hold up a member whose handshakes
	// the kernel can move. Those that end by themselves are better waited for: a
	// listener that closes between the lookup and the end of a handshake
	// (inet_csk_reqsk_queue_add) resets it, migration or not.
	migrateAfter = time.Second

	// answerTime is how long readers may take to answer what they have read last.
	answerTime = time.Second
)

// snapshot takes the handshakes that are under way. It comes after the grace, so
// that none is missing. It returns their number.
func (t *turn) snapshot(socks []*socket) (n int) {
	switch {
	case t.g.udp:
		t.report.WaitedFor = "no datagram unread, and readers back"
	case t.refs != nil:
		t.report.WaitedFor = "no handshake or queued connection of the member"
		for _, s := range socks {
			if pending, err := t.refs.pending(s.inode); err == nil {
				n += pending
			}
			if queued, _, err := queueLen(s.conn); err == nil {
				n = max(0, n-queued)
			}
		}
	case t.dc == nil:
		t.report.WaitedFor = "no queued connection"
	default:
		t.report.WaitedFor = "no queued connection, and none of the port's handshakes"
		tuples, err := t.dc.HalfOpen(t.key.query)
		t.handshakes = make(map[diag.Tuple]bool, len(tuples))
		if err != nil {
			t.lossy(err.Error())
		}
		for _, tuple := range tuples {
			t.handshakes[tuple] = true
		}
		n = len(tuples)
	}
	return n
}

// awaitQuiet waits until socks hold nothing, neither a handshake nor a queued
// connection, neither an unread datagram nor one that a reader has in hand, and
// returns them. It returns some of them if the others take longer. If group isn't
// nil, errChanged says that the group is another one, for then the sockets may get
// traffic again. Connections that are not accepted stop it until ctx ends.
func (t *turn) awaitQuiet(ctx context.Context, socks []*socket, group []uint32) ([]*socket, error) {
	defer func() {
		for _, s := range socks {
			s.openBarrier()
		}
	}()
	began := time.Now()
	looked := began
	t.busy = began
	emptied := make(map[*socket]time.Time)
	tick := time.NewTimer(0)
	defer tick.Stop()
	pause := 100 * time.Microsecond
	for {
		if group != nil && time.Since(looked) > lookAgain {
			if !t.is(group) {
				return nil, errChanged
			}
			looked = time.Now()
		}
		if len(t.g.present(socks)) < len(socks) {
			return nil, errChanged // closed by its user
		}
		queued := t.migrate && time.Since(began) > migrateAfter
		if err := t.lookHandshakes(queued); err != nil {
			return nil, err
		}
		var empty, quiet []*socket
		for _, s := range socks {
			n, err := t.held(s, queued)
			if err != nil {
				return nil, err
			}
			if n > 0 || len(t.handshakes) > 0 && !queued {
				t.busy = time.Now()
				delete(emptied, s)
				s.openBarrier() // a reader has to read it
				continue
			}
			empty = append(empty, s)
			if !t.answering(s, emptied) {
				quiet = append(quiet, s)
			}
		}
		if len(quiet) == len(socks) || len(quiet) > 0 && time.Since(began) > lookAgain {
			return quiet, nil
		}
		tick.Reset(pause)
		select {
		case <-t.g.moved:
			pause = 100 * time.Microsecond
		case <-tick.C:
			pause = min(2*pause, 4*time.Millisecond)
		case <-ctx.Done():
			if len(empty) == len(socks) {
				return socks, nil // the rest was to give readers time
			}
			return nil, fmt.Errorf("wait until nothing is left: %w", context.Cause(ctx))
		}
	}
}

// lookHandshakes forgets the handshakes that are over. It comes before a look at
// the queues: see diag.Conn.HalfOpen.
func (t *turn) lookHandshakes(queued bool) error {
	if queued || len(t.handshakes) == 0 {
		return nil
	}
	tuples, err := t.dc.HalfOpen(t.key.query)
	if err != nil {
		return err
	}
	still := make(map[diag.Tuple]bool)
	for _, tuple := range tuples {
		if t.handshakes[tuple] {
			still[tuple] = true
		}
	}
	t.handshakes = still
	return nil
}

// held counts what the kernel holds for s, or with queued only what is queued.
func (t *turn) held(s *socket, queued bool) (n int, err error) {
	if t.g.udp {
		return unread(s.conn)
	}
	if t.refs != nil && !queued {
		n, err := t.refs.pending(s.inode)
		if errors.Is(err, os.ErrNotExist) {
			return 1, nil // a listener went while the table was read: look again
		}
		return n, err
	}
	n, _, err = queueLen(s.conn)
	return n, err
}

// heldBy counts what socks hold, as far as the kernel tells.
func (t *turn) heldBy(socks []*socket) int {
	n := len(t.handshakes)
	for _, s := range t.g.present(socks) {
		held, _ := t.held(s, false) // fails on a closed socket
		n += held
	}
	return n
}

// answering reports, where nothing is unread any more, whether a reader may be
// about to answer from s.
func (t *turn) answering(s *socket, emptied map[*socket]time.Time) bool {
	if s.reads == nil {
		return false
	}
	since, looked := emptied[s]
	if !looked {
		since = time.Now()
		emptied[s] = since
	}
	// A count is a moment late: look twice.
	return (s.reads.answering(!t.flooded) || !looked) && time.Since(since) < answerTime
}

// openBarrier lets the readers read that answering holds.
func (s *socket) openBarrier() {
	if s.reads != nil {
		s.reads.open()
	}
}

// unread returns 1 if a datagram waits in c.
func unread(c syscall.Conn) (n int, err error) {
	err = control(c, func(fd int) error {
		var b [1]byte
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EAGAIN) {
			n = 1 // or an ICMP error, which the kernel reports once
		}
		return nil
	})
	return n, err
}

// settled waits a moment for hidden sockets, to which a lookup that had seen them
// before may have given something.
func (t *turn) settled(socks ...*socket) {
	for end := time.Now().Add(hiddenTime); t.heldBy(socks) > 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.lossy("a member that was taken out of the group was not emptied")
			t.report.Left += t.heldBy(socks)
			return
		}
	}
}

// hiddenTime is how long a hidden member may take to be emptied.
const hiddenTime = 2 * time.Second

// remaining returns socks without those of gone.
func remaining(socks, gone []*socket) []*socket {
	return slices.DeleteFunc(slices.Clone(socks), func(s *socket) bool { return slices.Contains(gone, s) })
}
