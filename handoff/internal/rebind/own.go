package rebind

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// An Own is a socket of this process to which the kernel gives nothing before Join.
type Own struct {
	Handle sockets.Handle

	// join is listen(2), or bind(2) of a datagram socket.
	join func(fd int) error

	beside []int // duplicates of the sockets that join needs
}

// Release closes what only Join needs.
func (o *Own) Release() error {
	fds := o.beside
	o.beside = nil
	return fdx.Close(fds...)
}

// inUse says that a program which is not of this service has an address.
type inUse struct{ address string }

func (e *inUse) Error() string {
	return syscall.EADDRINUSE.Error() + ": a program of another user, or one whose socket has no SO_REUSEPORT, has " + e.address + ": stop it, or choose another address"
}

func (e *inUse) Unwrap() []error {
	return []error{syscall.EADDRINUSE, failure.Unsupported, reuseport.ErrForeign}
}

// explain says what to do about a socket that can't be in the group of another.
func explain(err error) error {
	switch {
	case errors.Is(err, reuseport.ErrForeign):
	case errors.Is(err, syscall.EADDRINUSE): // of bind(2) or listen(2)
		err = fmt.Errorf("%w: %w", reuseport.ErrForeign, err)
	default:
		return err
	}
	return fmt.Errorf("%w: run both versions as one user, in one network namespace and on the same device, and have the running one in mode Drain from its start, or have made its sockets with reuseport.Control: %w", failure.Unsupported, err)
}
