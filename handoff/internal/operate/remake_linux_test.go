package operate_test

import (
	"errors"
	"fmt"
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
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// listener makes the control socket at path, and does not remove it.
func listener(tb testing.TB, path string) *net.UnixListener {
	tb.Helper()
	_, ln, err := operate.Open(path, patience, hclog.NewNullLogger())
	if err != nil {
		tb.Fatal(err)
	}
	ul := ln.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	tb.Cleanup(func() { _ = ul.Close() })
	return ul
}

// TestRemake makes control sockets again whose path leads elsewhere, but for those that
// are another's.
func TestRemake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		is      error
		want    string // in the error
	}{
		{"gone", func(t *testing.T, path string) { must(t, os.Remove(path)) }, nil, ""},
		{"gone with its folder", func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Dir(path))) }, nil, ""},
		{"a dead socket", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, listener(t, path).Close())
		}, nil, ""},
		{"another server", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			listener(t, path)
		}, syscall.EADDRINUSE, fmt.Sprintf("pid %d, of uid %d, serves", os.Getpid(), os.Geteuid())},
		{"another user's socket", func(t *testing.T, path string) {
			testenv.Need(t, "root")
			must(t, os.Remove(path))
			must(t, listener(t, path).Close())
			must(t, os.Chown(path, 65534, 65534))
		}, failure.PeerRefused, "a file of another user, which stays"},
		{"a file", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.WriteFile(path, nil, 0o600))
		}, nil, "is no socket: remove it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(testenv.ShortDir(t), "name", "s")
			listener(t, path)
			c.prepare(t, path)
			before, _ := os.Lstat(path)
			ln, err := operate.Remake(path, func() (bool, error) { return false, nil }, hclog.NewNullLogger())
			if ln != nil {
				defer ln.Close()
			}
			if c.want == "" {
				conn, derr := operate.Dial(path)
				if err := errors.Join(err, derr); err != nil {
					t.Fatal(err)
				}
				_ = conn.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Remake: %v, want %q in it, and %v", err, c.want, c.is)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("what was at the path was replaced (%v)", err)
			}
		})
	}
}

// TestRemakePresent renews the times of a control socket that is where it belongs.
func TestRemakePresent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "s")
	listener(t, path)
	must(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)))
	ln, err := operate.Remake(path, func() (bool, error) { return true, nil }, hclog.NewNullLogger())
	if ln != nil || err != nil {
		t.Errorf("Remake of one that is there = %v, %v", ln, err)
	}
	if fi, err := os.Lstat(path); err != nil || time.Since(fi.ModTime()) > time.Hour {
		t.Errorf("the socket is of %v, %v", fi.ModTime(), err)
	}
}

// TestOpenSole waits for a process whose control socket has lost its path, and does not
// take its place.
func TestOpenSole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "s")
	ln := listener(t, path)
	must(t, os.Remove(path))
	_, _, err := operate.OpenSole(path, 50*time.Millisecond, hclog.NewNullLogger())
	if want := fmt.Sprintf("pid %d has it open, and its path was removed", os.Getpid()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), want) {
		t.Errorf("OpenSole: %v, want %q in it", err, want)
	}
	var log strings.Builder
	remade := make(chan *net.UnixListener)
	go func() { // ends with Remake
		again, err := operate.Remake(path, func() (bool, error) { return false, nil }, hclog.NewNullLogger())
		if err != nil {
			t.Error(err)
		}
		remade <- again
	}()
	c, _, err := operate.OpenSole(path, patience, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil || c == nil {
		t.Errorf("OpenSole beside one that is made again = %v, %v, want a connection", c, err)
	} else {
		_ = c.Close()
	}
	_ = (<-remade).Close()
	_ = ln.Close()
	if _, alone, err := operate.OpenSole(path, patience, hclog.NewNullLogger()); err != nil || alone == nil {
		t.Errorf("OpenSole without a process = %v, %v, want a listener", alone, err)
	} else {
		_ = alone.Close()
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
