package reuseport

import (
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
	// Left is called for each socket that has joined, before it is closed.
	Left(c syscall.Conn)
	// Migrates reports whether the kernel moves what a closing socket holds to
	// one that has joined.
	Migrates() bool
	// Close takes the steering off the group.
	io.Closer
}
