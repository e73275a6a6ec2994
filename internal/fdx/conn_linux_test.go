package fdx_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// watchNonblock asks for the file status flags of fd over and over until the
// returned function is called, which fails the test if O_NONBLOCK was ever
// seen missing.
func watchNonblock(t testing.TB, fd int) (stop func()) {
	t.Helper()
	started, done, result := make(chan struct{}), make(chan struct{}), make(chan int)
	go func() {
		runtime.LockOSThread() // no waiting for a turn
		defer runtime.UnlockOSThread()
		blocking := 0
		for first := true; ; first = false {
			select {
			case <-done:
				result <- blocking
				return
			default:
			}
			if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK == 0 {
				blocking++
			}
			if first {
				close(started)
			}
		}
	}()
	<-started
	return func() {
		t.Helper()
		close(done)
		if n := <-result; n > 0 {
			t.Errorf("the shared open file description was seen blocking %d times", n)
		}
	}
}

// TestWrapKeepsNonblock wraps duplicates of a live listener and watches the
// listener's flags through yet another duplicate. It is not parallel, so that
// the watcher has a processor.
func TestWrapKeepsNonblock(t *testing.T) {
	ln := listenTCP(t)
	fd, err := fdx.Dup(ln)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, fd)
	stop := watchNonblock(t, fd)
	for range 6000 {
		again, err := fdx.Listener(dup(t, fd), "again")
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if flags(t, fd, unix.F_GETFL)&unix.O_NONBLOCK == 0 {
		t.Error("the live listener is blocking")
	}
}

func TestWrapBlocking(t *testing.T) {
	t.Parallel()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	other := closeAtEnd(t, dup(t, fd))
	ln, err := fdx.Listener(fd, "blocking")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if flags(t, other, unix.F_GETFL)&unix.O_NONBLOCK == 0 {
		t.Error("a descriptor that arrived blocking stayed so")
	}
	// A blocking accept(2) could not be interrupted.
	if err := ln.(*net.TCPListener).SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept past its deadline = %v", err)
	}
}

func TestWrapUnixKeepsPath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fd, err := fdx.Dup(ln.(*net.UnixListener))
	if err != nil {
		t.Fatal(err)
	}
	again, err := fdx.Listener(fd, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("path is gone: %v", err)
	}
}

func TestPacketConn(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	fd, err := fdx.Dup(pc.(*net.UDPConn))
	if err != nil {
		t.Fatal(err)
	}
	again, err := fdx.PacketConn(fd, "udp")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, want := again.LocalAddr().String(), pc.LocalAddr().String(); got != want {
		t.Errorf("LocalAddr = %s, want %s", got, want)
	}
}

// TestWrapClosesOnError hands over descriptors that can't be wrapped and shows
// that each was closed: the read end of their pipe or socket sees the end.
func TestWrapClosesOnError(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(int, string) error{
		"Listener":   func(fd int, name string) error { _, err := fdx.Listener(fd, name); return err },
		"PacketConn": func(fd int, name string) error { _, err := fdx.PacketConn(fd, name); return err },
		"Conn":       func(fd int, name string) error { _, err := fdx.Conn(fd, name); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			fd, err := fdx.Dup(w)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := wrap(fd, "pipe"); !errors.Is(err, unix.ENOTSOCK) {
				t.Errorf("%s(pipe) = %v, want ENOTSOCK", name, err)
			}
			if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read = %v, want EOF: %s kept the write end", err, name)
			}
			if err := wrap(-1, "none"); !errors.Is(err, unix.EBADF) {
				t.Errorf("%s(-1) = %v, want EBADF", name, err)
			}
		})
	}
}

func TestConnKeepsOptions(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tc := c.(*net.TCPConn)
	if err := errors.Join(
		tc.SetNoDelay(false),
		tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 77 * time.Second, Interval: 7 * time.Second, Count: 3}),
		tc.SetKeepAlive(false),
	); err != nil {
		t.Fatal(err)
	}
	fd, err := fdx.Dup(tc)
	if err != nil {
		t.Fatal(err)
	}
	other := closeAtEnd(t, dup(t, fd))
	moved, err := fdx.Conn(fd, "conn")
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	for _, o := range []struct {
		name       string
		level, opt int
		want       int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 0},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
	} {
		if got, err := unix.GetsockoptInt(other, o.level, o.opt); err != nil || got != o.want {
			t.Errorf("%s = %d, %v, want %d", o.name, got, err, o.want)
		}
	}
}
