package machine

import (
	"context"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an address in the machine's network; of a unix socket with a
// path, to that path of the machine's.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if len(address) > 0 && address[0] == '/' {
		address = m.Path(address)
	}
	return m.dial(ctx, network, address)
}

func (m *Machine) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	ns, err := os.Open(m.Path("/proc/1/ns/net"))
	if err != nil {
		return nil, err
	}
	defer ns.Close() // only a handle
	rc, err := ns.SyscallConn()
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { // ends with the dial; its thread, which is in the other namespace, with it
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread would not end: while it is locked here, another takes
			// part.
			defer runtime.UnlockOSThread()
			c, err = m.dial(ctx, network, address)
			return
		}
		var serr error
		if err = rc.Control(func(fd uintptr) { serr = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
			return
		}
		if err = os.NewSyscallError("setns", serr); err != nil {
			return
		}
		c, err = new(net.Dialer).DialContext(ctx, network, address)
	}()
	<-done
	return c, err
}
