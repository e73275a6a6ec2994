package sdnotify_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// manager is systemd's end.
func manager(t *testing.T, path string) (*net.UnixConn, *sdnotify.Notifier) {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := sdnotify.New(env{"NOTIFY_SOCKET": path}.get, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c, n
}

// receive returns the next message and its descriptors, which the caller closes.
func receive(t *testing.T, c *net.UnixConn) (string, []int) {
	t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	all, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(buf[:n]), fds
}

func TestSend(t *testing.T) {
	t.Parallel()
	for _, path := range []string{filepath.Join(t.TempDir(), "n"), "@baton-test-" + filepath.Base(t.TempDir()) + t.Name()} {
		c, n := manager(t, path)
		m := sdnotify.Message{
			sdnotify.Ready, sdnotify.Status("two\nlines "), sdnotify.MainPID(12), sdnotify.MainPIDFDID(13),
			sdnotify.ExtendTimeout(time.Second), sdnotify.ExtendTimeout(0),
		}
		m = append(m, sdnotify.Reloading(time.Millisecond)...)
		if err := n.Send(m); err != nil {
			t.Fatal(err)
		}
		want := "READY=1\nSTATUS=two lines\nMAINPID=12\nMAINPIDFDID=13\nEXTEND_TIMEOUT_USEC=1000000\nEXTEND_TIMEOUT_USEC=1\nRELOADING=1\nMONOTONIC_USEC=1000"
		if got, fds := receive(t, c); got != want || len(fds) != 0 {
			t.Errorf("Send() sent %q with descriptors %v, want %q", got, fds, want)
		}
	}
}

func TestBarrier(t *testing.T) {
	t.Parallel()
	c, n := manager(t, filepath.Join(t.TempDir(), "n"))
	done := make(chan error, 1)
	go func() { done <- n.Barrier(context.Background()) }()
	got, fds := receive(t, c)
	if got != "BARRIER=1" || len(fds) != 1 {
		t.Fatalf("Barrier() sent %q with %d descriptors, want BARRIER=1 with one", got, len(fds))
	}
	select {
	case err := <-done:
		t.Fatalf("Barrier() = %v before it was let through", err)
	case <-time.After(10 * time.Millisecond):
	}
	if err := fdx.Close(fds...); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Barrier() = %v", err)
	}
	// systemd does not let it through.
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- n.Barrier(ctx) }()
	_, fds = receive(t, c)
	defer fdx.Close(fds...)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Barrier() = %v, want context.Canceled", err)
	}
}

func TestNoSystemd(t *testing.T) {
	t.Parallel()
	none, err := sdnotify.New(env{}.get, time.Second)
	if err != nil || none != nil {
		t.Fatalf("New() without NOTIFY_SOCKET = %v, %v, want nil", none, err)
	}
	if err := errors.Join(none.Send(sdnotify.Message{sdnotify.Ready}), none.Barrier(t.Context())); err != nil {
		t.Errorf("a nil Notifier: %v", err)
	}
	gone, err := sdnotify.New(env{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "none")}.get, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Send(sdnotify.Message{sdnotify.Ready}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Send() without a socket = %v, want os.ErrNotExist", err)
	}
	if _, err := sdnotify.New(env{"NOTIFY_SOCKET": "vsock:2:1"}.get, time.Second); !errors.Is(err, sdnotify.ErrEnvironment) {
		t.Errorf("New() with an address of another kind = %v, want ErrEnvironment", err)
	}
}

func TestClocks(t *testing.T) {
	t.Parallel()
	if a, b := sdnotify.Monotonic(), sdnotify.Monotonic(); a <= 0 || b < a {
		t.Errorf("Monotonic() = %v, then %v", a, b)
	}
	if a, b := sdnotify.PIDFDID(os.Getpid()), sdnotify.PIDFDID(os.Getpid()); a != b {
		t.Errorf("PIDFDID() = %d, then %d", a, b)
	}
	if id := sdnotify.PIDFDID(-1); id != 0 {
		t.Errorf("PIDFDID(-1) = %d", id)
	}
}
