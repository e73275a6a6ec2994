package reuseport

import (
	"context"
	"syscall"
	"time"
)

// Leaving is an old socket of a group, which [Move] empties and closes.
type Leaving struct {
	// Conn is the socket. Move borrows it.
	Conn syscall.Conn

	// Close closes every duplicate that this process has of the socket. Move
	// calls it once, as soon as nothing waits in the socket, and never before.
	Close func() error
}

// turnTime is how long Move may keep other processes from the group lock.
const turnTime = 10 * time.Second

// Move leaves old sockets of a group in favour of own ones, without losing a
// connection or a datagram. All are TCP listeners, or all UDP sockets, of one
// SO_REUSEPORT group; the own ones listen (or are bound) already, and stay the
// caller's. The caller keeps accepting (or reading) from all of them until Move
// returns.
//
// Move steers new connections away from the old sockets, and closes each old
// socket by its Close when its queue is empty and none of its handshakes is under
// way. It holds the group lock for about ten seconds at most. When a client that
// does not end its handshake takes longer, the group is steered by [Hash] again
// for a moment, other processes get the lock, and Move tries again.
//
// The answer to a datagram that was read from an old socket has to go out from an
// own one, unless the old socket is a [PacketConn].
//
// When ctx ends first, the group is steered by Hash, the old sockets that are
// left are open, and the error matches [ErrIncomplete]. The sockets whose Close
// was called are gone in any case.
//
// Without own sockets the address is given up, for old TCP listeners alone, which need
// no SO_REUSEPORT: the kernel refuses new connections from the begin of the call on,
// unless another listener has the address; what is queued or half-open is accepted; and
// then the listeners are closed, with what is left if ctx ends first. Duplicates in
// other processes do no harm.
//
// No other process may have a duplicate of an old socket: a duplicate keeps the
// socket in the group, where it drops what comes to it. The report says so.
// Where the group can't be steered, nothing is closed and the error matches
// [errors.ErrUnsupported].
//
// Move sends packets to the address to find out which place of the group is whose.
// The sockets that it was given drop these, as the members of a [Group] do: see the
// package documentation.
func Move(ctx context.Context, own []syscall.Conn, old []Leaving) (Report, error) {
	return move(ctx, own, old, turnTime)
}
