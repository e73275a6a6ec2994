package pidfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/pidfile"
)

// TestFile takes a PID file over from another process: staged, written, and removed; and
// gives it up in between.
func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, next := filepath.Join(dir, "pid"), filepath.Join(dir, ".pid.next")
	const other = "1\n"
	ours := fmt.Sprintln(os.Getpid())
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when, path, text string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if text == "" {
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s holds %q, %v, want none", when, filepath.Base(path), got, err)
			}
			return
		}
		if err != nil || string(got) != text {
			t.Errorf("%s: %s holds %q, %v, want %q", when, filepath.Base(path), got, err, text)
		}
	}
	do := func(f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	write(path, other)
	f := pidfile.At(path)
	do(f.Stage)
	want("staged", path, other)
	want("staged", next, ours)
	do(f.Unstage)
	want("unstaged", next, "")
	write(next, other)
	do(f.Unstage)
	want("of another, unstaged", next, other)
	do(f.Clean)
	want("clean", next, "")
	do(f.Clean)
	do(f.Remove)
	want("of another, removed", path, other)

	f = pidfile.At(path)

	do(f.Stage)
	write(next, other) // another process was faster
	do(f.Write)
	want("written", path, ours)
	want("written", next, "")
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o644 {
		t.Errorf("its mode: %v, %v, want 0644", fi.Mode(), err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	do(f.Write)
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("a second Write has made another file, %v", err)
	}
	do(f.Remove)
	want("removed", path, "")
	do(f.Remove)
}

// TestWriteAfterRemove has a late Write come after the process has removed the file.
func TestWriteAfterRemove(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	f := pidfile.At(path)
	if err := errors.Join(f.Write(), f.Remove(), f.Write()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file holds %q, %v, want none", text, err)
	}
}

// TestRefused wants an error where the file can't be written, and none without a file.
func TestRefused(t *testing.T) {
	t.Parallel()
	f := pidfile.At(filepath.Join(t.TempDir(), "none", "pid"))
	if err := f.Stage(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "make it, or choose another PIDFile") {
		t.Errorf("Stage() = %v, want ErrNotExist and advice", err)
	}
	if err := f.Write(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Write() = %v, want ErrNotExist", err)
	}
	none := pidfile.At("")
	if err := errors.Join(none.Stage(), none.Write(), none.Unstage(), none.Clean(), none.Remove()); err != nil {
		t.Error(err)
	}
}
