package reuseport_test

import (
	"errors"
	"net"

	"github.com/seed-11c92bf9/baton/reuseport"
)

func isIncomplete(err error) bool { return errors.Is(err, reuseport.ErrIncomplete) }

func isClosed(err error) bool {
	return errors.Is(err, reuseport.ErrClosed) && errors.Is(err, net.ErrClosed)
}
