package sdnotify_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

func TestStore(t *testing.T) {
	t.Parallel()
	c, n := manager(t, filepath.Join(t.TempDir(), "n"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fd, err := fdx.Number(ln.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.Store("web", fd), n.Unstore("web")); err != nil {
		t.Fatal(err)
	}
	got, fds := receive(t, c)
	if got != "FDSTORE=1\nFDNAME=web\nFDPOLL=0" || len(fds) != 1 {
		t.Fatalf("Store() sent %q with %d descriptors", got, len(fds))
	}
	defer fdx.Close(fds...)
	same, err := fdx.Info(fds[0])
	if err != nil || !same.Listening {
		t.Errorf("Store() sent %+v, %v, want the listener", same, err)
	}
	if got, fds := receive(t, c); got != "FDSTOREREMOVE=1\nFDNAME=web" || len(fds) != 0 {
		t.Errorf("Unstore() sent %q with %d descriptors", got, len(fds))
	}
}

// TestRoom has systemd keep a descriptor, close it, and say nothing.
func TestRoom(t *testing.T) {
	t.Parallel()
	c, n := manager(t, filepath.Join(t.TempDir(), "n"))
	type answer struct {
		kept bool
		err  error
	}
	done := make(chan answer, 1)
	for _, keeps := range []bool{true, false} {
		go func() {
			kept, err := n.Room(context.Background(), "probe")
			done <- answer{kept, err}
		}()
		got, fds := receive(t, c)
		if got != "FDSTORE=1\nFDNAME=probe" || len(fds) != 1 {
			t.Fatalf("Room() sent %q with %d descriptors", got, len(fds))
		}
		if !keeps {
			_ = fdx.Close(fds...)
		}
		got, barrier := receive(t, c)
		if got != "BARRIER=1" || len(barrier) != 1 {
			t.Fatalf("Room() sent %q with %d descriptors, want BARRIER=1 with one", got, len(barrier))
		}
		_ = fdx.Close(barrier...)
		if a := <-done; a.kept != keeps || a.err != nil {
			t.Errorf("Room() = %t, %v, want %t", a.kept, a.err, keeps)
		}
		if got, _ := receive(t, c); got != "FDSTOREREMOVE=1\nFDNAME=probe" {
			t.Errorf("Room() has left its descriptor: %q", got)
		}
		if keeps {
			_ = fdx.Close(fds...)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := n.Room(ctx, "probe"); !errors.Is(err, context.Canceled) {
		t.Errorf("Room() = %v, want context.Canceled", err)
	}
	for range 2 {
		_, fds := receive(t, c)
		_ = fdx.Close(fds...)
	}
	var none *sdnotify.Notifier
	if kept, err := none.Room(t.Context(), "probe"); kept || err != nil {
		t.Errorf("Room() of a nil Notifier = %t, %v", kept, err)
	}
	gone, err := sdnotify.New(env{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "none")}.get, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Room(t.Context(), "probe"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Room() = %v, want os.ErrNotExist", err)
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"": true, "web": true, " ~|%": true, strings.Repeat("x", 255): true,
		strings.Repeat("x", 256): false, "a:b": false, "a\nb": false, "\x7f": false, "é": false, "a\xff": false,
	} {
		if got := sdnotify.ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %t, want %t", name, got, want)
		}
	}
}

func TestStoreSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "0": 0, "16": 16, "-1": -1, "x": -1, "99999999999": -1} {
		got, err := sdnotify.StoreSize(env{"FDSTORE": text}.get)
		if want < 0 {
			if got != 0 || !errors.Is(err, sdnotify.ErrEnvironment) {
				t.Errorf("StoreSize(%q) = %d, %v, want ErrEnvironment", text, got, err)
			}
			continue
		}
		if got != want || err != nil {
			t.Errorf("StoreSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}
