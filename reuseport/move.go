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

// Move replaces old sockets of a group by the caller's own ones, without losing a
// connection or a datagram. All are TCP listeners, or all UDP sockets, of one
// SO_REUSEPORT group. The own ones listen (or are bound) already, and Move borrows them.
// The caller accepts (or reads) from all of them until Move returns.
//
// Move steers new connections away from the old sockets, and closes each old socket by
// its Close when its queue is empty and none of its handshakes is under way. It holds the
// group lock for about ten seconds at most. If a client does not end its handshake in
// that time, Move sets the steering to [Hash] and releases the lock for other processes,
// and then tries again.
//
// The answer to a datagram that was read from an old socket has to go out from an
// own one, unless the old socket is a [PacketConn].
//
// If ctx ends first, Move sets the steering to Hash and returns an error that matches
// [ErrIncomplete]. The old sockets that Move has not closed yet stay open.
//
// Without own sockets, Move gives the address up. The old sockets have to be TCP
// listeners, and need no SO_REUSEPORT. From the begin of the call on, the kernel refuses
// new connections, unless another listener has the address. The caller accepts the
// connections that are queued or half-open, and then Move closes the listeners. If ctx
// ends first, it closes them with the connections that are left. In this case other
// processes may have duplicates of them.
//
// With own sockets, no other process may have a duplicate of an old one: a duplicate
// keeps the socket in the group, and connections that the kernel gives to it are lost.
// The report says so. If the group can't be steered, Move closes nothing and returns an
// error that matches [errors.ErrUnsupported].
//
// To find the place of each socket in the group, Move sends packets to the address. The
// sockets that it was given drop these, as the members of a [Group] do: see the package
// documentation.
func Move(ctx context.Context, own []syscall.Conn, old []Leaving) (Report, error) {
	return move(ctx, own, old, turnTime)
}
