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

// nowhere is the index of an interface that no machine has.
const nowhere = 1<<31 - 1

// closeAll closes sockets, which are quiet. It returns those that a lookup could
// find while they closed.
func (l *leave) closeAll(ctx context.Context, sockets []*socket) (exposed []*socket, err error) {
	if !l.c.udp {
		return l.closeListeners(ctx, sockets)
	}
	var hidden []*socket
	for _, s := range sockets { // in this order: hiding and closing both leave the group
		if hide(s) {
			hidden = append(hidden, s)
			continue
		}
		l.shut([]*socket{s})
		exposed = append(exposed, s)
	}
	if len(hidden) == 0 {
		return exposed, nil
	}
	if err := awaitGrace(ctx); err != nil {
		return exposed, err
	}
	// A lookup that had seen a socket before it was hidden may have given it
	// something after that.
	if err := l.wait(ctx, hidden, false, nil); err != nil {
		return exposed, err
	}
	l.shut(hidden)
	return exposed, nil
}

// closeListeners is closeAll for TCP. A hidden listener is still in its group, so
// that all of them close in the order given, and ignores a SYN that comes to it
// there, because no way leads out of its interface. One that moves to the closed
// part of its group (reuseport_stop_listen_sock, where the kernel migrates) is
// never without a group, and needs none of this.
//
// A grace is not waited for, as it is for UDP: a lookup that had found a listener
// before it was hidden has nanoseconds to its group, and would have to be held up
// there for as long as two system calls take.
func (l *leave) closeListeners(ctx context.Context, sockets []*socket) (exposed []*socket, err error) {
	if l.migrate {
		l.shut(sockets)
		return nil, nil
	}
	for _, s := range sockets {
		if !hide(s) {
			exposed = append(exposed, s)
		}
	}
	if n, err := l.left(sockets, false); err != nil || n > 0 {
		// Another process has left without taking turns.
		if err := l.wait(ctx, sockets, false, nil); err != nil {
			return exposed, err
		}
	}
	l.shut(sockets)
	if len(exposed) == len(sockets) {
		return exposed, nil
	}
	if l.stay(ctx, sockets) {
		l.lossy("somebody has a duplicate of the member, see Listener.Exclusive: it stays in the group and drops what comes to it")
	}
	return exposed, nil
}

// noteExposed reports that sockets are closed which a lookup could find meanwhile, but
// for those that somebody's duplicate keeps in the group.
func (l *leave) noteExposed(sockets []*socket, group []uint32) {
	if !slices.ContainsFunc(sockets, func(s *socket) bool { return !slices.Contains(group, s.inode) }) {
		return
	}
	what, see := "connection", "Listener"
	if l.c.udp {
		what, see = "datagram", "PacketConn"
	}
	l.lossy("a " + what + " that came in the instant of the close can be lost: the socket may have been shared, see " + see + ".Exclusive, or was bound to a device, or Linux is older than 5.7")
}

// forkTime is how long a child of this process may have a duplicate of each
// descriptor, between fork and exec on a busy machine.
const forkTime = 2 * time.Second

// stay reports whether hidden listeners stay in the group although this process
// has closed them. Nothing is steered to them yet. Without sock_diag it is not
// known.
func (l *leave) stay(ctx context.Context, closed []*socket) bool {
	if l.dc == nil {
		return false
	}
	for start := time.Now(); ; {
		there, err := l.dc.Listeners(l.site.query)
		if err != nil || !slices.ContainsFunc(there, func(m diag.Socket) bool {
			return m.Ifindex == nowhere && slices.ContainsFunc(closed, func(s *socket) bool { return s.inode == m.Inode })
		}) {
			return false
		}
		if time.Since(start) > forkTime {
			return true
		}
		pause := time.NewTimer(time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return true
		}
	}
}

// hide keeps a socket from being found while it closes. The kernel takes a
// socket out of its group first and off its hash list afterwards (udp_lib_unhash,
// net/ipv4/udp.c; inet_unhash, net/ipv4/inet_hashtables.c); a lookup that comes by
// in between, if only in a softirq that the first step has put off, finds a
// socket without a group, and gives it the datagram or the SYN. Of listeners that
// befalls the one that is first on the list: the last that has listened with
// IPv4, the first with IPv6. A socket that is bound to another interface is
// passed over; a UDP socket is out of its group then, too (udp_lib_rehash), and
// sock_diag passes it over as well. That is possible once without privilege
// (Linux 5.7), and would harm whoever uses a duplicate of the socket.
func hide(s *socket) bool { return !s.shared() && bindNowhere(s.conn) == nil }

func bindNowhere(c syscall.Conn) error {
	return control(c, func(fd int) error {
		return os.NewSyscallError("setsockopt(SO_BINDTOIFINDEX)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere))
	})
}

// shut closes the sockets in this order.
func (l *leave) shut(sockets []*socket) {
	for _, s := range sockets {
		if !l.c.drop(s) {
			continue // closed meanwhile by its user
		}
		l.errs = append(l.errs, s.shut())
		l.report.Settle = max(l.report.Settle, time.Since(l.busy))
		l.report.Members++
	}
}

// abandon closes all that is to leave when the time is up.
func (l *leave) abandon(sockets []*socket, cause error) error {
	if !l.migrate || l.report.Strategy != StrategySteerMigrate && l.report.Strategy != StrategySteerer {
		l.lossy("the time was up")
	}
	if !errors.Is(cause, ErrIncomplete) { // else wait has counted
		l.countLeft(sockets)
		cause = fmt.Errorf("%w: %w", ErrIncomplete, cause)
	}
	l.shut(sockets)
	return cause
}

// hurry closes those of later steps when the time is up. They may be where the
// traffic goes.
func (l *leave) hurry(sockets []*socket) {
	own := l.c.members()
	rest := slices.DeleteFunc(slices.Clone(sockets), func(s *socket) bool { return !slices.Contains(own, s) })
	if len(rest) == 0 {
		return
	}
	if !l.report.LossPossible {
		l.lossy("the time was up")
	}
	l.countLeft(rest)
	l.shut(rest)
}
