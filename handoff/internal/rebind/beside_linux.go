package rebind

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// ReserveBeside makes a listener for k whose address overlaps that of others, which
// listen: fds, which it owns. The kernel allows two such listeners where both have
// SO_REUSEPORT, which the others get for the calls of bind(2) and listen(2); the new one
// keeps it where keep is set. The kernel gives a connection to the listener with the more
// specific address, so a program does not notice before it is to.
func ReserveBeside(ctx context.Context, k sockets.Key, lc *net.ListenConfig, fds []int, keep bool) (*Own, error) {
	if k.Kind == wire.KindPacket {
		_ = fdx.Close(fds...) // duplicates
		return nil, fmt.Errorf("%w: the address of a datagram socket can't change under load on the same port: take another port, or stop the service and start it anew", failure.Unsupported)
	}
	cfg := *lc
	cfg.Control = reuseport.Control(lc.Control)
	var o *Own
	err := sharing(fds, func() (err error) {
		o, err = listener(ctx, k, k.Address, &cfg)
		return err
	})
	if err != nil {
		_ = fdx.Close(fds...) // duplicates
		return nil, explain(err)
	}
	listen := o.join
	o.beside = fds
	o.join = func(fd int) error {
		err := sharing(fds, func() error { return listen(fd) })
		if err == nil && !keep {
			err = os.NewSyscallError("setsockopt(SO_REUSEPORT)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
		}
		return err
	}
	return o, nil
}

// sharing runs f while fds have SO_REUSEPORT.
func sharing(fds []int, f func() error) error {
	for _, fd := range fds {
		had, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err == nil && had == 0 {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			defer unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
		}
		if err != nil {
			return os.NewSyscallError("SO_REUSEPORT", err)
		}
	}
	return f()
}

// GiveUp leaves a socket that no process is to serve any more, while the program still
// accepts, or reads, from it: new connections are refused, or find another listener, and
// it is closed when nothing is left in it, while Accept waits. A datagram socket stays open for answers, and
// so does what comes to it after the last look.
func GiveUp(ctx context.Context, s *sockets.Socket) (reuseport.Report, error) {
	_, unixListener := s.Handle().(*net.UnixListener)
	switch {
	case s.Entry.Kind == wire.KindPacket:
		return reuseport.Report{}, await(ctx, func() (bool, error) { return unread(s.Handle()) })
	case unixListener:
		return leaveUnix(ctx, s.Handle(), s.Retire)
	}
	return reuseport.Move(ctx, nil, []reuseport.Leaving{{Conn: s.Handle(), Close: s.Retire}})
}

// leaveUnix is GiveUp for a unix listener. shutdown(2) has the kernel refuse connections
// from then on, and leaves the queue as it is (unix_stream_connect and unix_accept,
// net/unix/af_unix.c).
func leaveUnix(ctx context.Context, h sockets.Handle, shut func() error) (r reuseport.Report, err error) {
	began := time.Now()
	err = fdx.Borrow(h, func(fd int) error { return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RD)) })
	if err == nil {
		err = await(ctx, func() (bool, error) {
			r.Left, _, err = reuseport.QueueLen(h)
			return r.Left > 0, err
		})
	}
	r.Duration = time.Since(began)
	return r, errors.Join(err, shut())
}

// unread reports whether a datagram waits in c.
func unread(c syscall.Conn) (yes bool, err error) {
	err = fdx.Borrow(c, func(fd int) error {
		var b [1]byte
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		yes = err == nil
		return nil
	})
	return yes, err
}

// await asks until the answer is no.
func await(ctx context.Context, more func() (bool, error)) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		if yes, err := more(); !yes || err != nil {
			return err
		}
		pause.Reset(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
