package sdnotify_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// hasty returns a notifier that gives a full socket up soon.
func hasty(t *testing.T, path string) *sdnotify.Notifier {
	t.Helper()
	n, err := sdnotify.New(env{"NOTIFY_SOCKET": path}.get, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// openQueue returns a queue whose failures go to a channel.
func openQueue(t *testing.T, n *sdnotify.Notifier) (*sdnotify.Queue, chan error) {
	t.Helper()
	failures := make(chan error, 16)
	return sdnotify.NewQueue(n, func(m sdnotify.Message, err error) { failures <- fmt.Errorf("%s: %w", m[0], err) }), failures
}

// TestQueue leaves systemd's socket full for a while: everything arrives, in order,
// and functions are called between the messages.
func TestQueue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n")
	c, _ := manager(t, path)
	q, failures := openQueue(t, hasty(t, path))
	q.Send(sdnotify.Message{"A=2"})
	fakesystemd.Fill(t, path)
	q.Start(sdnotify.Message{"A=1"})
	if err := <-failures; !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), "A=1") {
		t.Errorf("failed: %v, want A=1 and os.ErrDeadlineExceeded", err)
	}
	var called atomic.Bool
	block := make(chan struct{})
	q.Do(func() {
		called.Store(true)
		<-block
	})
	q.Send(sdnotify.Message{"A=3"})
	q.Pulse(sdnotify.Message{"PULSE=1"}) // dropped
	if called.Load() {
		t.Error("a function was called before what precedes it was sent")
	}
	expect := func(want string) {
		t.Helper()
		got := "X=1"
		for got == "X=1" {
			got, _ = receive(t, c)
		}
		if got != want {
			t.Fatalf("systemd received %s, want %s", got, want)
		}
	}
	expect("A=1")
	expect("A=2")
	q.Pulse(sdnotify.Message{"PULSE=2"})
	expect("PULSE=2")
	close(block)
	expect("A=3")
	if unsent := q.Close(time.Minute); unsent != nil || !called.Load() {
		t.Errorf("Close() = %s, want nil; called: %t", unsent, called.Load())
	}
	if len(failures) > 0 {
		t.Errorf("failed more than once: %v", <-failures)
	}
}

// TestQueueGone has no systemd for a message.
func TestQueueGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n")
	c, n := manager(t, path)
	if err := errors.Join(c.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	q, failures := openQueue(t, n)
	q.Send(sdnotify.Message{"A=1"})
	q.Do(func() { c, _ = manager(t, path) })
	q.Send(sdnotify.Message{"A=2"})
	q.Start()
	if unsent := q.Close(time.Minute); unsent != nil {
		t.Errorf("Close() = %s, want nil", unsent)
	}
	if err := <-failures; !errors.Is(err, os.ErrNotExist) || len(failures) > 0 {
		t.Errorf("failed: %v and %d more, want os.ErrNotExist alone", err, len(failures))
	}
	if got, _ := receive(t, c); got != "A=2" {
		t.Errorf("systemd received %s, want A=2", got)
	}
}

// TestQueueClose gives a full socket up.
func TestQueueClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n")
	manager(t, path)
	fakesystemd.Fill(t, path)
	q, failures := openQueue(t, hasty(t, path))
	first := sdnotify.Message{"A=1", "B=1"}
	q.Send(first)
	q.Do(func() { t.Error("a function was called though what precedes it was not sent") })
	q.Start()
	if unsent := q.Close(50 * time.Millisecond); !slices.Equal(unsent, first) || len(failures) != 1 {
		t.Errorf("Close() = %s after %d failures, want %s after 1", unsent, len(failures), first)
	}
}

// TestQueueCloseUnstarted closes a queue that was not started: what it has is sent
// after the time that Close was given.
func TestQueueCloseUnstarted(t *testing.T) {
	t.Parallel()
	c, n := manager(t, filepath.Join(t.TempDir(), "n"))
	q, _ := openQueue(t, n)
	q.Send(sdnotify.Message{"A=1"})
	if unsent := q.Close(0); unsent != nil {
		t.Errorf("Close() = %s, want nil", unsent)
	}
	if got, _ := receive(t, c); got != "A=1" {
		t.Errorf("systemd received %s, want A=1", got)
	}
	empty, _ := openQueue(t, n)
	if unsent := empty.Close(time.Hour); unsent != nil {
		t.Errorf("Close() of an empty queue = %s, want nil", unsent)
	}
	var none *sdnotify.Queue
	called := false
	none.Send(sdnotify.Message{"A=1"})
	none.Do(func() { called = true })
	if none.Start(); !called || none.Close(time.Hour) != nil {
		t.Errorf("a nil Queue: called: %t, want true", called)
	}
}
