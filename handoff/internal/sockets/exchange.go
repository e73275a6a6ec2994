package sockets

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// InPlace reports whether path leads to the unix socket that e describes, as far as that is
// known.
func InPlace(e *wire.Socket, path string) (bool, error) {
	if e.PathIno == 0 {
		return true, nil
	}
	dev, ino, err := pathID(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return dev == e.PathDev && ino == e.PathIno, err
}

// Exchange has s, a unix listener that is in no table, go on with h: of the old one Accept
// returns what is in its queue. It returns when that is done, or stop is closed, and takes
// ownership of h. No process may have borrowed s, nor may another goroutine use its Entry.
func (s *Socket) Exchange(h *net.UnixListener, stop <-chan struct{}) error {
	fd, err := fdx.Number(h)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	s.gate.pause()
	defer s.gate.open()
	l, err := s.replace(h, fd)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	h.SetUnlinkOnClose(false) // see Unlink
	k := KeyOf(&s.Entry)
	k.Address = h.Addr().String()
	err = s.describe(k, h.Addr())
	s.gate.open()
	return errors.Join(err, l.empty(func(c net.Conn) { s.Listener.queue.push(c, stop) }), l.Release())
}

// empty calls each with each connection in the queue of a unix listener, which gets no more:
// shutdown(2) has the kernel refuse them (unix_stream_connect, net/unix/af_unix.c).
func (l *Leaving) empty(each func(net.Conn)) error {
	ln, ok := l.Handle().(*net.UnixListener)
	if !ok {
		return nil
	}
	if err := refuse(ln); err != nil {
		return err
	}
	for {
		c, err := acceptNow(ln)
		switch {
		case err == nil && c == nil:
			return nil
		case err == nil:
			each(c)
			continue
		}
		var again interface{ Temporary() bool }
		if !errors.As(failure.Again(err), &again) || !again.Temporary() {
			return err
		}
		time.Sleep(5 * time.Millisecond) // short of descriptors, most likely
	}
}
