package sdnotify_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// fill sends to a manager that reads nothing until not one more message fits.
func fill(t *testing.T, path string) {
	t.Helper()
	for {
		// One each: a sender may have no room before the receiver has none.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Sendto(fd, []byte("X=1"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: path})
		_ = unix.Close(fd)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// hasty returns a notifier that gives a full socket up soon.
func hasty(t *testing.T, path string) *sdnotify.Notifier {
	t.Helper()
	n, err := sdnotify.New(env{"NOTIFY_SOCKET": path}.get, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// closed reports whether systemd has heard all, by what Told has returned.
func closed(told <-chan struct{}) bool {
	select {
	case <-told:
		return true
	default:
		return false
	}
}

// TestBacklog has systemd read nothing for a while.
func TestBacklog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n")
	c, _ := manager(t, path)
	fill(t, path)
	var b sdnotify.Backlog
	now := false
	b.Then(func() { now = true })
	if b.AddBehind(sdnotify.Message{"A=0"}) || !closed(b.Told()) || !now {
		t.Error("nothing waits, and something waits for it")
	}
	if !b.Add(sdnotify.Message{"A=1"}) || b.Add(sdnotify.Message{"A=2"}) || !b.AddBehind(sdnotify.Message{"A=3"}) {
		t.Error("the first that was added is not the first, or not the only one")
	}
	told := b.Told()
	var then atomic.Bool
	third := make(chan struct{})
	b.Then(func() {
		then.Store(true)
		<-third // it was sent before: nobody does while this waits
		if closed(told) || b.Add(sdnotify.Message{"A=4"}) {
			t.Error("all was told before what is to be done then")
		}
	})
	silent, done := make(chan struct{}, 1), make(chan sdnotify.Message, 1)
	go func() {
		done <- b.Tell(hasty(t, path), nil, func(m sdnotify.Message, err error) {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v, want os.ErrDeadlineExceeded", m, err)
			}
			select {
			case silent <- struct{}{}:
			default:
			}
		})
	}()
	<-silent
	if closed(told) || then.Load() {
		t.Error("told what nobody has read")
	}
	for _, want := range []string{"A=1", "A=2", "A=3", "A=4"} {
		got := "X=1"
		for got == "X=1" {
			got, _ = hear(t, c)
		}
		if got != want {
			t.Fatalf("systemd heard %s, want %s", got, want)
		}
		if want == "A=3" {
			close(third)
		}
	}
	if m := <-done; m != nil || !closed(told) || !closed(b.Told()) {
		t.Errorf("Tell() = %s, want nil, and that all was told", m)
	}
	if !b.Add(sdnotify.Message{"A=5"}) {
		t.Error("the first after all was told is not the first")
	}
}

// TestBacklogGone has systemd be away for a message. A Tell that is to end goes on
// for as long as it is heard.
func TestBacklogGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n")
	c, n := manager(t, path)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var b sdnotify.Backlog
	b.Add(sdnotify.Message{"A=1"})
	b.Add(sdnotify.Message{"A=2"})
	end := make(chan struct{})
	close(end)
	failed := 0
	m := b.Tell(n, end, func(m sdnotify.Message, err error) {
		failed++
		if m[0] != "A=1" || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want A=1 and os.ErrNotExist", m, err)
		}
		c, _ = manager(t, path)
	})
	if m != nil || failed != 1 || !closed(b.Told()) {
		t.Errorf("Tell() = %s after %d failures, want nil after 1; all was told: %t", m, failed, closed(b.Told()))
	}
	if got, _ := hear(t, c); got != "A=2" {
		t.Errorf("systemd heard %s, want A=2", got)
	}
}

// TestBacklogEnd has systemd read nothing until the end.
func TestBacklogEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n")
	manager(t, path)
	fill(t, path)
	var b sdnotify.Backlog
	first := sdnotify.Message{"A=1", "B=1"}
	b.Add(first)
	b.Add(sdnotify.Message{"A=2"})
	b.Then(func() { t.Error("nothing was heard") })
	end := make(chan struct{})
	failed := 0
	untold := b.Tell(hasty(t, path), end, func(m sdnotify.Message, err error) {
		switch failed++; failed {
		case 3:
			close(end)
		case 4:
			t.Fatal("it goes on after the end")
		}
		if !slices.Equal(m, first) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v, want %s and os.ErrDeadlineExceeded", m, err, first)
		}
	})
	if !slices.Equal(untold, first) || failed != 3 || closed(b.Told()) {
		t.Errorf("Tell() = %s after %d failures, want %s after 3; all was told: %t", untold, failed, first, closed(b.Told()))
	}
}
