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

	// ErrIncomplete means that the context ended before a leaving member was
	// quiet. After Drain and Remove the member is closed nevertheless, and
	// [Report.Left] counts what that has cost.
	ErrIncomplete = errors.New("reuseport: connections were left when the time was up")

	// ErrForeign means that the socket can't join: the running sockets on the
	// address belong to another user, or are not SO_REUSEPORT sockets. It
	// comes with the EADDRINUSE of bind(2) or listen(2). From [Move] it means
	// that the sockets are not in one group.
	ErrForeign = errors.New("reuseport: the address has sockets that this one can't join: they belong to another user or were made without SO_REUSEPORT")

	// ErrNotMember means that a member given to a Group is not one of it.
	ErrNotMember = errors.New("reuseport: not a member of this group")

	// ErrNotSteered means that the kernel took a steering program and chose
	// other members than the program says.
	ErrNotSteered = errors.New("reuseport: the kernel does not choose as asked")
)
