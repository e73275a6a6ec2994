package sockets

import (
	"errors"
	"net"
	"os"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// Introduce has the kernel name this process to the clients of its unix listeners: see
// [Socket.Introduce].
func (t *Table) Introduce() error {
	var errs []error
	asked := 0
	for _, s := range t.All() {
		if s.origin == nil { // this process has bound it
			continue
		}
		if _, ok := s.Handle().(*net.UnixListener); ok {
			asked++
			errs = append(errs, s.introduce(asked <= maxCounted))
		}
	}
	return errors.Join(errs...)
}

// Introduce has the kernel name this process to those that connect to s from now on, if
// it is a unix listener: SO_PEERCRED of a client is the process that has called listen(2)
// last (unix(7); unix_listen in net/unix/af_unix.c). The queue stays as it is. Where that
// process had another user, as one that has dropped its privileges after its bind, nothing
// changes: clients may go by the user.
func (s *Socket) Introduce() error {
	if s == nil {
		return nil
	}
	return s.introduce(true)
}

// introduce is Introduce. Where ask is set it keeps the limit of the queue, if the kernel
// tells it; otherwise the listener gets net.core.somaxconn, as package net gives one.
func (s *Socket) introduce(ask bool) error {
	h, ok := s.Handle().(*net.UnixListener)
	if !ok {
		return nil
	}
	if was, err := fdx.PeerCred(h); err != nil || was.UID != os.Geteuid() { // of the last listen(2)
		return err
	}
	limit := maxBacklog
	if ask {
		if _, n, err := reuseport.QueueLen(h); err == nil {
			limit = n
		}
	}
	return fdx.Borrow(h, func(fd int) error { return listen(fd, limit) })
}

// maxBacklog is more than net.core.somaxconn, which bounds what listen(2) takes.
const maxBacklog = 1<<31 - 1
