package handoff

import (
	"errors"
	"fmt"
	"os"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// AddFile passes f to each successor, under a name. The Upgrader takes ownership of f,
// also if AddFile returns an error. f may be a socket: an upgrade does not pause it.
func (u *Upgrader) AddFile(name string, f *os.File) error {
	if err := u.mayListen(); err != nil {
		return errors.Join(err, f.Close())
	}
	s, err := sockets.New(sockets.Key{Kind: wire.KindFile, Name: name}, f, nil, nil)
	if err != nil {
		return fmt.Errorf("handoff: file %q: %w", name, err)
	}
	if err := u.add(s); err != nil {
		return fmt.Errorf("handoff: file %q: %w", name, err)
	}
	return nil
}

// File returns a copy of the file that this process or its predecessor has added under
// name; the caller closes the copy. The Upgrader passes the predecessor's files on to the
// next successor as well. The error matches [os.ErrNotExist] if there is none.
func (u *Upgrader) File(name string) (*os.File, error) {
	s := u.table.File(name)
	if s == nil {
		if err := u.mayListen(); err != nil {
			return nil, err
		}
		var err error
		if s, err = u.matchFile(name); err != nil {
			return nil, fmt.Errorf("handoff: file %q: %w", name, err)
		}
	}
	fd, err := fdx.Dup(s.Handle())
	if err != nil {
		return nil, fmt.Errorf("handoff: file %q: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (u *Upgrader) matchFile(name string) (*sockets.Socket, error) {
	k := sockets.Key{Kind: wire.KindFile, Name: name}
	h, origin, err := u.match(k)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, os.ErrNotExist
	}
	s, err := sockets.New(k, h, nil, origin)
	if err != nil {
		return nil, err
	}
	return s, u.add(s)
}
