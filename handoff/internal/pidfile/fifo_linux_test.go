package pidfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/pidfile"
)

// TestFIFO wants an error at once where the PID file is a named pipe, which nothing
// writes to, and where the file of a staged one is.
func TestFIFO(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, "pid"), filepath.Join(dir, "other")
	for _, p := range []string{path, filepath.Join(dir, ".other.next")} {
		if err := unix.Mkfifo(p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f := pidfile.At(path)
		for name, err := range map[string]error{"Stage": f.Stage(), "Write": f.Write()} {
			if err == nil || !strings.Contains(err.Error(), "no regular file") {
				t.Errorf("%s() = %v, want an error that says it is no regular file", name, err)
			}
		}
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
		if err := pidfile.At(other).Write(); err != nil {
			t.Errorf("with a named pipe in the place of the staged file: %v", err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the named pipe is gone: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a writer")
	}
}
