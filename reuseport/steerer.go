package reuseport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Steerer steers a group in another way than this package does, one that knows
// sockets instead of indexes, such as an eBPF program: see
// [Group.Use]. Package reuseport/ebpf has one. Its methods borrow the sockets
// for the call; they are called by one goroutine at a time, that of the Group's
// method which needs them.
type Steerer interface {
	// Join gives c new connections from now on.
	Join(c syscall.Conn) error
	// Away takes them from all of leaving, and gives them to the others that
	// have joined. If none is left it changes nothing and returns an error.
	Away(leaving ...syscall.Conn) error
	// Left is told of each socket that has joined, before it is closed.
	Left(c syscall.Conn)
	// Migrates reports whether the kernel moves what a closing socket holds to
	// one that has joined.
	Migrates() bool
	// Close takes the steering off the group.
	io.Closer
}

// Use makes s steer the group, from all its members of this process: they join,
// and those that [Group.Add] and [Listener.Listen] bring later join as well.
// Drain then uses s, without probing; Steer gives an error. The group takes
// ownership of s, and closes it when its last member has left or is closed. After
// an error s is the caller's again.
func (g *Group) Use(ctx context.Context, s Steerer) error {
	if err := g.crew.begin(ctx); err != nil {
		return err
	}
	defer g.crew.end()
	own := g.crew.members()
	if len(own) == 0 {
		return ErrClosed
	}
	if g.crew.steeredBy() != nil {
		return errors.New("reuseport: the group has a Steerer already")
	}
	for _, m := range own {
		if err := s.Join(m.conn); err != nil {
			return fmt.Errorf("join a member: %w", err)
		}
	}
	g.crew.mu.Lock()
	defer g.crew.mu.Unlock()
	g.crew.steerer = s
	return nil
}
