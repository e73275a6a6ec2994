package operate_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// left returns the names in the folder at path, or an error if there is none.
func left(path string) (names []string, err error) {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// TestClean removes the lock file with the socket, and the folder where that is asked for
// and nothing else is in it, and leaves all to a process that has the lock.
func TestClean(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		folder  bool
		prepare func(t *testing.T, path string)
		want    []string // nil: no folder
	}{
		{"all of it", true, func(*testing.T, string) {}, nil},
		{"not the folder", false, func(*testing.T, string) {}, []string{}},
		{"not a folder with another file", true, func(t *testing.T, path string) {
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "pid"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"pid"}},
		{"the lock file is gone", true, func(t *testing.T, path string) {
			if err := os.Remove(path + ".lock"); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"the folder is gone", true, func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"another process has the lock", true, func(t *testing.T, path string) {
			f, err := os.Open(path + ".lock")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			if err := fdx.Borrow(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX) }); err != nil {
				t.Fatal(err)
			}
		}, []string{"s", "s.lock"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(testenv.ShortDir(t), "name")
			path := filepath.Join(dir, "s")
			c2, ln, err := operate.Open(path, patience, hclog.NewNullLogger())
			if err != nil || c2 != nil {
				t.Fatalf("Open() = %v, %v", c2, err)
			}
			c.prepare(t, path)
			if err := end(ln, c.folder); err != nil {
				t.Fatal(err)
			}
			got, err := left(dir)
			if (c.want == nil) != errors.Is(err, os.ErrNotExist) || len(got) != len(c.want) {
				t.Fatalf("the folder holds %q, %v, want %q", got, err, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("the folder holds %q, want %q", got, c.want)
				}
			}
		})
	}
}

// end cleans up, and then closes ln.
func end(ln net.Listener, folder bool) error {
	unix, ok := ln.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("a %T", ln)
	}
	unix.SetUnlinkOnClose(false)
	path := ln.Addr().String()
	own, err := os.Lstat(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = operate.Clean(path, folder, func() error {
			if there, err := os.Lstat(path); err != nil || !os.SameFile(own, there) {
				return nil
			}
			return os.Remove(path)
		})
	}
	return errors.Join(err, ln.Close())
}

// TestCleanRace has several processes open one control socket, serve it and clean up, all
// at the same time: never do two serve it, none fails, and in the end nothing is left.
// A lock is that of an open file (flock(2)), so that goroutines compete like processes.
func TestCleanRace(t *testing.T) {
	t.Parallel()
	const processes = 8
	dir := filepath.Join(testenv.ShortDir(t), "name")
	path := filepath.Join(dir, "s")
	var serving, served atomic.Int64
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			for range testenv.Times(50, 300) {
				c, ln, err := operate.Open(path, patience, hclog.NewNullLogger())
				switch {
				case err != nil:
					t.Errorf("Open: %v", err)
					return
				case c != nil:
					_ = c.Close()
					continue
				}
				if n := serving.Add(1); n != 1 {
					t.Errorf("%d processes serve the socket", n)
				}
				served.Add(1)
				serving.Add(-1)
				if err := end(ln, true); err != nil {
					t.Errorf("Clean: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := served.Load(); n < processes {
		t.Errorf("%d processes have served the socket, want more", n)
	}
	if got, err := left(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder holds %q, %v, want no folder", got, err)
	}
}
