package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// lease is the right to change a group's program and to take members out,
// among all processes that use this package. It is an abstract unix socket: its
// name lives in the network namespace, as the port does, and goes with the
// process, however that ends.
type lease struct {
	ln *net.UnixListener
}

// errSquatted means that another user's process has the name.
var errSquatted = errors.New("another user holds the name under which the processes of this group take turns")

// takeLease waits until the name is free. Who waits is connected to the holder
// and learns by the end of that connection that the name is free.
func takeLease(ctx context.Context, name string) (*lease, error) {
	addr := &net.UnixAddr{Name: name, Net: "unix"}
	for {
		ln, err := net.ListenUnix("unix", addr)
		if err == nil {
			return &lease{ln: ln}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("take the turn of the group: %w", err)
		}
		if err := awaitHolder(ctx, addr); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// awaitHolder returns nil when it's worth trying again.
func awaitHolder(ctx context.Context, addr *net.UnixAddr) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, addr.Net, addr.Name)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// Gone just now, or its queue of waiting processes is full.
		select {
		case <-time.After(time.Millisecond):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer nc.Close()
	cred, err := fdx.PeerCred(nc.(*net.UnixConn))
	if err != nil {
		return err
	}
	if cred.UID != os.Geteuid() && cred.UID != 0 {
		return errSquatted
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b [1]byte
	_, _ = nc.Read(b[:]) // any end of it is the answer
	return nil
}

func (l *lease) free() {
	if l != nil {
		_ = l.ln.Close() // nothing was written to it
	}
}
