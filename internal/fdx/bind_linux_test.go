package fdx_test

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A bound socket refuses connections until it listens, with the address and the
// options that net's would have.
func TestBind(t *testing.T) {
	for _, c := range []struct{ network, address, dial string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", ":0", "127.0.0.1"},
		{"tcp6", "[::1]:0", "::1"},
		{"tcp", ":0", "127.0.0.1"},
		{"tcp", ":0", "::1"},
		{"tcp", "0.0.0.0:0", "127.0.0.1"},
		{"tcp", "localhost:0", "localhost"},
	} {
		called := false
		lc := &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			called = true
			return nil
		}}
		want, err := (&net.ListenConfig{}).Listen(t.Context(), c.network, c.address)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		fd, err := fdx.Bind(t.Context(), lc, c.network, c.address)
		if err != nil {
			t.Errorf("Bind(%v): %v", c, err)
			continue
		}
		if !called {
			t.Errorf("Bind(%v) has not called the user's Control", c)
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		port := 0
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			port = sa.Port
		case *unix.SockaddrInet6:
			port = sa.Port
		}
		address := net.JoinHostPort(c.dial, strconv.Itoa(port))
		if nc, err := net.Dial(c.network, address); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("dial what %v has bound: %v, %v, want ECONNREFUSED", c, nc, err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			t.Errorf("listen on %v: %v", c, err)
		}
		ln, err := fdx.Listener(fd, "bound")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		gotHost, _, _ := net.SplitHostPort(ln.Addr().String())
		wantHost, _, _ := net.SplitHostPort(want.Addr().String())
		if gotHost != wantHost {
			t.Errorf("Bind(%v) is on %s, net's Listen on %s", c, gotHost, wantHost)
		}
		nc, err := net.Dial(c.network, address)
		if err != nil {
			t.Errorf("dial what %v listens on: %v", c, err)
			continue
		}
		_ = nc.Close() // that it came is all
	}
}

func TestBindErrors(t *testing.T) {
	lc := &net.ListenConfig{}
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if fd, err := fdx.Bind(t.Context(), lc, "tcp4", ln.Addr().String()); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Bind to an address in use = %d, %v, want EADDRINUSE", fd, err)
	}
	stop := errors.New("stop")
	lc.Control = func(string, string, syscall.RawConn) error { return stop }
	if fd, err := fdx.Bind(t.Context(), lc, "tcp4", "127.0.0.1:0"); !errors.Is(err, stop) {
		t.Errorf("Bind with a Control that fails = %d, %v, want its error", fd, err)
	}
}
