package handofftls

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrBusy says that a connection can't move at this moment: a call of Read or Write
	// is in progress, or a part of a record, or data that Read has not returned yet, is
	// in this process. It may move later.
	ErrBusy = errors.New("handofftls: the connection is in use")

	// ErrStays says that a connection never moves: serve it to its end. The error that
	// wraps it has the reason.
	ErrStays = errors.New("handofftls: the connection can't move")

	// ErrMoved is the error of Read and Write on a connection that Send has passed on,
	// or has given up. It matches [net.ErrClosed].
	ErrMoved = fmt.Errorf("handofftls: the connection has moved: %w", net.ErrClosed)

	// ErrState says that the state of a connection from a predecessor is malformed, or
	// of a cipher suite that this process lacks.
	ErrState = errors.New("handofftls: malformed state of a connection")
)

// stays gives the reason for which a connection never moves.
func stays(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrStays, fmt.Errorf(format, args...))
}
