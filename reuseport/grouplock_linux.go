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

// groupLock is the right to change a group's program and to take members out,
// among all processes that use this package. It is an abstract unix socket: its
// name lives in the network namespace, as the port does, and goes with the
// process, however that ends.
type groupLock struct {
	ln *net.UnixListener
}

// errSquatted means that another user's process has the name.
var errSquatted = errors.New("another user has bound the unix address of the group lock")

// takeGroupLock waits until the name is free. A waiting process is connected to
// the holder, and the end of that connection says that the name is free.
func takeGroupLock(ctx context.Context, name string) (*groupLock, error) {
	addr := &net.UnixAddr{Name: name, Net: "unix"}
	for {
		ln, err := net.ListenUnix("unix", addr)
		if err == nil {
			return &groupLock{ln: ln}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("take the group lock: %w", err)
		}
		if err := awaitHolder(ctx, addr); err != nil {
			return nil, fmt.Errorf("wait for the turn of the group: %w", err)
		}
	}
}

// awaitHolder returns nil when it's worth trying again.
func awaitHolder(ctx context.Context, addr *net.UnixAddr) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, addr.Net, addr.Name)
	if err != nil {
		// Gone just now, or its queue of waiting processes is full.
		return sleep(ctx, time.Millisecond)
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
	return context.Cause(ctx)
}

func (l *groupLock) free() {
	if l != nil {
		_ = l.ln.Close() // nothing was written to it
	}
}

// sleep returns nil after that time, or the cause when ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
