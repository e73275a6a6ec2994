package testservice_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

func TestMain(m *testing.M) { testmain.Run(m) }

type message struct {
	Kind string
	N    int
}

// kind returns whether a message is of a kind.
func kind(k string) func(message) bool { return func(m message) bool { return m.Kind == k } }

// newLine returns a line, and a function that starts a shell script in it.
func newLine(t *testing.T) (l *testservice.Line[message], mark string, start func(script string)) {
	t.Helper()
	dir := t.TempDir()
	mark = "BATON_TESTSERVICE=" + dir + "\x00"
	l = testservice.New[message](mark)
	t.Cleanup(l.Kill)
	return l, mark, func(script string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", script)
		cmd.Env = append(os.Environ(), "BATON_TESTSERVICE="+dir)
		if err := l.Start(cmd, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// within bounds each wait of a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestTake takes each message once, in the order in which they came, and waits for one
// that comes later.
func TestTake(t *testing.T) {
	t.Parallel()
	l, _, start := newLine(t)
	start(`echo '{"Kind":"a","N":1}'; echo no JSON; echo '{"Kind":"b","N":2}'; echo '{"Kind":"a","N":3}'; echo words >&2`)
	ctx := within(t)
	for _, want := range []message{{"a", 1}, {"a", 3}, {"b", 2}} {
		if got, err := l.Take(ctx, kind(want.Kind)); err != nil || got != want {
			t.Errorf("Take() = %v, %v, want %v", got, err, want)
		}
	}
	l.Wait()
	if err := l.Until(ctx, func(all []message, runs bool) bool { return len(all) == 3 && !runs }); err != nil {
		t.Error(err)
	}
	if got := l.Log(); got != "words\n" {
		t.Errorf("Log() = %q", got)
	}
	start(`sleep 0.1; echo '{"Kind":"b","N":4}'`)
	if got, err := l.Take(ctx, kind("b")); err != nil || got.N != 4 {
		t.Errorf("Take() = %v, %v, want 4", got, err)
	}
	if got, err := l.Take(ctx, kind("b")); err == nil || !strings.Contains(err.Error(), "have ended") || !strings.Contains(err.Error(), "words") {
		t.Errorf("Take() = %v, %v, want an error with the log", got, err)
	}
	start("sleep 1000")
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if got, err := l.Take(short, kind("b")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Take() = %v, %v, want %v", got, err, context.DeadlineExceeded)
	}
}

// TestKill kills a process of the line that its first one has left behind.
func TestKill(t *testing.T) {
	t.Parallel()
	l, mark, start := newLine(t)
	start(`(echo '{"Kind":"up"}'; sleep 1000) &`)
	if _, err := l.Take(within(t), kind("up")); err != nil {
		t.Fatal(err)
	}
	if len(procs.Marked(mark)) == 0 {
		t.Error("no process is left: the test shows nothing")
	}
	l.Kill()
	if left := procs.Marked(mark); len(left) > 0 {
		t.Errorf("processes %d are left", left)
	}
}
