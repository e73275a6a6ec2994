package sockets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Handle is the object of package net or os that owns a descriptor: a
// *[net.TCPListener], *[net.UnixListener], *[net.UDPConn], *[net.UnixConn] or
// *[os.File].
type Handle interface {
	syscall.Conn
	io.Closer
}

// Bind binds a new socket for k. A unix socket whose owner was killed is
// replaced. makeRoom is called with the error of a first attempt, and reports
// whether another one may succeed.
func Bind(ctx context.Context, k Key, lc *net.ListenConfig, makeRoom func(error) bool) (Handle, error) {
	h, err := bind(ctx, k, lc)
	if err != nil && makeRoom(err) {
		// A child of the process that had the socket has it, too, from fork(2) to execve(2).
		for pause := time.Millisecond; ; pause *= 2 {
			if h, err = bind(ctx, k, lc); !errors.Is(err, syscall.EADDRINUSE) || pause > 256*time.Millisecond {
				break
			}
			time.Sleep(pause)
		}
	}
	if err != nil && RemoveStale(k, err) {
		h, err = bind(ctx, k, lc)
	}
	return h, err
}

func bind(ctx context.Context, k Key, lc *net.ListenConfig) (Handle, error) {
	if k.Kind == wire.KindPacket {
		return HandleOf(lc.ListenPacket(ctx, k.Network, k.Address))
	}
	return HandleOf(lc.Listen(ctx, k.Network, k.Address))
}

// Open takes ownership of fd, a socket or file of k's kind, and returns its handle.
func Open(k Key, fd int) (Handle, error) {
	switch k.Kind {
	case wire.KindFile:
		return os.NewFile(uintptr(fd), k.Name), nil
	case wire.KindPacket:
		return HandleOf(fdx.PacketConn(fd, k.String()))
	}
	return HandleOf(fdx.Listener(fd, k.String()))
}

// HandleOf takes ownership of c, which a function of package net has returned
// together with err.
func HandleOf[C io.Closer](c C, err error) (Handle, error) {
	if err != nil {
		return nil, err
	}
	h, ok := any(c).(Handle)
	if !ok {
		_ = c.Close() // of no use
		return nil, fmt.Errorf("%w: a socket of type %T", failure.Unsupported, c)
	}
	return h, nil
}
