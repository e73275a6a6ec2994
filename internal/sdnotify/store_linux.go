package sdnotify

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Store has systemd keep fd, which it borrows, under a name, and pass it on when it
// starts the service again. systemd says nothing about it, see [Notifier.Room];
// what it has already it takes once, and what it has no room for it closes. The
// name must be valid, see [ValidName].
func (n *Notifier) Store(name string, fd int) error { return n.Send(store(name), fd) }

// Unstore has systemd close what it keeps under a name, if it does.
func (n *Notifier) Unstore(name string) error { return n.Send(unstore(name)) }

// Room reports whether systemd has kept what was sent before, and keeps one more:
// it sends a descriptor under a name, looks whether systemd has closed it, and
// takes it out again. An error matches ctx's where that has ended first.
func (n *Notifier) Room(ctx context.Context, name string) (bool, error) {
	if n == nil {
		return false, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer r.Close() // which would have systemd close its end, if nothing else did
	fd, err := fdx.Number(w)
	if err == nil {
		err = n.Send(probe(name), fd)
	}
	_ = w.Close() // systemd has the only other one
	if err == nil {
		err = n.Barrier(ctx)
	}
	if err != nil {
		return false, err
	}
	kept, err := open(r)
	return kept, errors.Join(err, n.Unstore(name))
}

// open reports whether a process has the other end of the pipe r, which is empty.
func open(r *os.File) (bool, error) {
	raw, err := r.SyscallConn()
	if err != nil {
		return false, err
	}
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			if _, rerr = unix.Read(int(fd), make([]byte, 1)); rerr != unix.EINTR {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return false, err
	case rerr == unix.EAGAIN:
		return true, nil
	}
	return false, os.NewSyscallError("read", rerr)
}
