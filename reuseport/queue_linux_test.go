package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// listen returns a plain TCP listener with the given options set.
func listen(t testing.TB, network, address string, opts ...func(fd int) error) *net.TCPListener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			for _, opt := range opts {
				err = errors.Join(err, opt(int(fd)))
			}
		})
		return errors.Join(cerr, err)
	}}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.(*net.TCPListener)
}

// deferAccept keeps a handshake half-open until the client has sent data.
func deferAccept(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30)
}

// dial opens n connections; they close at the end of the test.
func dial(t testing.TB, network, address string, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, 0, n)
	for range n {
		c, err := net.DialTimeout(network, address, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		conns = append(conns, c)
	}
	return conns
}

var families = []struct {
	name, network, listen, dial string
}{
	{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
	{"IPv4 any", "tcp4", "0.0.0.0:0", "127.0.0.1"},
	{"IPv6", "tcp6", "[::1]:0", "::1"},
	{"dual-stack by IPv4", "tcp", "[::]:0", "127.0.0.1"},
	{"dual-stack by IPv6", "tcp", "[::]:0", "::1"},
}

// at returns the address at which ln is dialled.
func at(ln net.Listener, host string) string {
	return net.JoinHostPort(host, fmt.Sprint(ln.Addr().(*net.TCPAddr).Port))
}

func TestQueueLen(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t, f.network, f.listen)
			dial(t, "tcp", at(ln, f.dial), 5)
			n, backlog, err := reuseport.QueueLen(ln)
			if n != 5 || backlog < 128 || err != nil {
				t.Errorf("QueueLen = %d, %d, %v, want 5, somaxconn, nil", n, backlog, err)
			}
		})
	}
	for _, network := range []string{"unix", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen(network, filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			dial(t, network, ln.Addr().String(), 3)
			n, backlog, err := reuseport.QueueLen(ln.(*net.UnixListener))
			if n != 3 || backlog < 128 || err != nil {
				t.Errorf("QueueLen = %d, %d, %v, want 3, somaxconn, nil", n, backlog, err)
			}
		})
	}
}

func TestQueueLenOfOtherSockets(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, _, err := reuseport.QueueLen(pc.(*net.UDPConn)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("QueueLen of a UDP socket: %v, want EINVAL", err)
	}
	if _, err := reuseport.HalfOpen(pc.(*net.UDPConn)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("HalfOpen of a UDP socket: %v, want ErrUnsupported", err)
	}
	ln := listen(t, "tcp", "127.0.0.1:0")
	_ = ln.Close()
	if _, _, err := reuseport.QueueLen(ln); !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("QueueLen of a closed listener: %v, want ErrClosed", err)
	}
}

func TestHalfOpen(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t, f.network, f.listen, deferAccept)
			conns := dial(t, "tcp", at(ln, f.dial), 6)
			if n, err := reuseport.HalfOpen(ln); n != 6 || err != nil {
				t.Fatalf("HalfOpen = %d, %v, want 6, nil", n, err)
			}
			for _, c := range conns[:4] {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				a, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = a.Close()
			}
			if n, err := reuseport.HalfOpen(ln); n != 2 || err != nil {
				t.Errorf("HalfOpen after 4 of 6 completed = %d, %v, want 2, nil", n, err)
			}
			// The way that is used where references can't be read.
			if n, err := reuseport.ListHalfOpen(ln); n != 2 || err != nil {
				t.Errorf("HalfOpen by sock_diag = %d, %v, want 2, nil", n, err)
			}
		})
	}
}

// Two listeners on one port that differ in their address do not count each
// other's handshakes.
func TestHalfOpenOfOtherAddress(t *testing.T) {
	t.Parallel()
	a := listen(t, "tcp4", "127.66.30.1:0", deferAccept)
	b := listen(t, "tcp4", fmt.Sprintf("127.66.30.2:%d", a.Addr().(*net.TCPAddr).Port), deferAccept)
	dial(t, "tcp", a.Addr().String(), 3)
	dial(t, "tcp", b.Addr().String(), 4)
	for _, c := range []struct {
		ln   *net.TCPListener
		want int
	}{{a, 3}, {b, 4}} {
		if n, err := reuseport.HalfOpen(c.ln); n != c.want || err != nil {
			t.Errorf("HalfOpen(%v) = %d, %v, want %d, nil", c.ln.Addr(), n, err, c.want)
		}
	}
}
