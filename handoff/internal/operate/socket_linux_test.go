package operate_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// open makes the control socket at path and closes it.
func open(path string) error {
	path, err := operate.Locate("", path)
	if err != nil {
		return err
	}
	c, ln, err := operate.Open(path, patience, hclog.NewNullLogger())
	if c != nil {
		return errors.Join(errors.New("another process serves it"), c.Close())
	}
	if ln != nil {
		err = errors.Join(err, ln.Close())
	}
	return err
}

// TestOpenUnsafe wants an error that says what to do for a control socket in a
// place that is not safe, or not possible.
func TestOpenUnsafe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string) (path string)
		want    []string
	}{
		{"open folder", func(t *testing.T, dir string) string {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "s")
		}, []string{"0755", "chmod 700"}},
		{"folder open to a group", func(t *testing.T, dir string) string {
			if err := os.Chmod(dir, 0o710); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "s")
		}, []string{"0710", "chmod 700"}},
		{"folder of all users", func(t *testing.T, dir string) string {
			testenv.Need(t, "root") // of another user it is refused for what is below it
			if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "s")
		}, []string{"every user can write", "NAME/control.sock"}},
		{"folder that is read-only", func(t *testing.T, _ string) string {
			return "/sys/s/s" // mkdir(2) has EPERM for root, EACCES for others
		}, []string{"choose a ControlSocket", "XDG_RUNTIME_DIR"}},
		{"folder of another user", func(t *testing.T, dir string) string {
			testenv.Need(t, "root")
			const other = 65534
			if err := os.Chown(dir, other, other); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "s")
		}, []string{"belongs to uid 65534"}},
		{"folder that another user can replace", func(t *testing.T, dir string) string {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "web", "s")
		}, []string{"0777", "others could replace what is below it", "chmod go-w"}},
		{"link to a folder", func(t *testing.T, dir string) string {
			link := filepath.Join(dir, "link")
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(link, "s")
		}, []string{"is no folder"}},
		{"file", func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "s")
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if b, err := os.ReadFile(path); string(b) != "precious" {
					t.Errorf("the file holds %q, %v afterwards", b, err)
				}
			})
			return path
		}, []string{"is no socket", "remove it or choose another"}},
		{"folder", func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "s")
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			return path
		}, []string{"is no socket"}},
		{"long path", func(_ *testing.T, dir string) string {
			return filepath.Join(dir, strings.Repeat("x", 108-len(dir)-1))
		}, []string{"108 bytes, and unix(7) allows 107", "choose a shorter ControlSocket"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := open(c.prepare(t, testenv.ShortDir(t)))
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Open: %v, want %q in it", err, want)
				}
			}
		})
	}
}

// TestOpen makes a control socket where the path is the longest, or has no folder
// yet.
func TestOpen(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	if err := open(filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))); err != nil {
		t.Error(err)
	}
	if err := open(filepath.Join(dir, "a", "b", "s")); err != nil {
		t.Error(err)
	}
}

// TestOpenServed connects to the listener that has the path, takes the place of one
// whose process was killed, and tells one from the other.
func TestOpenServed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "s")
	_, ln, err := operate.Open(path, patience, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	c, second, err := operate.Open(path, patience, hclog.NewNullLogger())
	if err != nil || second != nil || c == nil {
		t.Fatalf("Open of a served socket = %v, %v, %v, want a connection", c, second, err)
	}
	_ = c.Close()
	unix, ok := ln.(*net.UnixListener)
	if !ok {
		t.Fatalf("a %T", ln)
	}
	unix.SetUnlinkOnClose(false) // as a killed process leaves it
	_ = ln.Close()
	if err := open(path); err != nil {
		t.Errorf("Open of a stale socket: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new socket's path after Close: %v, want none", err)
	}
}

// TestOpenLocked waits for a process that has the lock and gives it back, and says so,
// and not for ever for one that keeps it.
func TestOpenLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "s")
	f, err := os.Create(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fdx.Borrow(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX) }); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	_, _, err = operate.Open(path, 300*time.Millisecond, hclog.New(&hclog.LoggerOptions{Output: &log}))
	holder := fmt.Sprintf("pid %d", os.Getpid())
	if !errors.Is(err, failure.Timeout) || !strings.Contains(err.Error(), path+".lock") || !strings.Contains(err.Error(), holder) {
		t.Errorf("Open: %v, want a timeout that names the file, and %s", err, holder)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, path+".lock") || !strings.Contains(got, holder) {
		t.Errorf("the log says %q, want a line that names the file, and %s", got, holder)
	}
	r, w := io.Pipe()
	go func() { // ends with the line, or with the test
		_, _ = r.Read(make([]byte, 1))
		_ = f.Close()
		_, _ = io.Copy(io.Discard, r)
	}()
	_, ln, err := operate.Open(path, patience, hclog.New(&hclog.LoggerOptions{Output: w}))
	_ = w.Close()
	if err != nil {
		t.Fatalf("Open when the lock is given back: %v", err)
	}
	_ = ln.Close()
}
