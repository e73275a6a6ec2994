package reuseport

import (
	"errors"
	"fmt"
	"net"
)

// Conditions that a caller can branch on with [errors.Is]. Where a system can't
// do what was asked, the error matches [errors.ErrUnsupported] instead; where
// the privilege is missing, [io/fs.ErrPermission].
var (
	// ErrClosed is the error of every call on a closed or drained member or
	// group. It matches [net.ErrClosed].
	ErrClosed = fmt.Errorf("reuseport: %w", net.ErrClosed)

	// ErrIncomplete means that the context ended while a leaving member still had
	// connections in its queue or in a handshake. Drain and Remove close the member in
	// spite of that, and [Report.Left] counts these connections.
	ErrIncomplete = errors.New("reuseport: connections were left when the time was up")

	// ErrForeign means that the socket can't join the group: the sockets on the address
	// belong to another user, or were made without SO_REUSEPORT. The error wraps the
	// EADDRINUSE of bind(2) or listen(2). From [Move] it means that the sockets are not
	// in one group.
	ErrForeign = errors.New("reuseport: the address has sockets that this one can't join: they belong to another user or were made without SO_REUSEPORT")

	// ErrNotMember means that the Group does not have the member that a method was given.
	ErrNotMember = errors.New("reuseport: not a member of this group")

	// ErrNotSteered means that the kernel accepted a steering program, but does not
	// choose the members that the program names.
	ErrNotSteered = errors.New("reuseport: the kernel does not choose as asked")
)
