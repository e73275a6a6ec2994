package reuseport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// nowhere is the index of an interface that no machine has.
const nowhere = 1<<31 - 1

// closeAll closes sockets, which are quiet. It returns the UDP sockets that a
// lookup could find while they closed.
func (l *leave) closeAll(ctx context.Context, sockets []*socket) (exposed []*socket, err error) {
	if !l.c.udp {
		l.shut(sockets)
		return nil, nil
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

// hide keeps a UDP socket from being found while it closes. The kernel takes a
// socket out of its group first and off its hash list afterwards
// (net/ipv4/udp.c, udp_lib_unhash); a lookup that comes by in between finds a
// socket without a group, and gives it the datagram. One that is bound to
// another interface is passed over, also by sock_diag, and is out of its group
// (udp_lib_rehash). That is possible once without privilege (Linux 5.7), and
// would harm whoever uses a duplicate of the socket.
func hide(s *socket) bool {
	return !s.shared() && control(s.conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere)
	}) == nil
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
