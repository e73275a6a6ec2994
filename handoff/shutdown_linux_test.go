package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestCallsAfterShutdown calls methods at the same time when Shutdown has returned. The
// race detector fails it where one call writes what another one reads.
func TestCallsAfterShutdown(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	if err := errors.Join(up.Ready(), up.Close()); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			if err := up.Upgrade(t.Context()); !errors.Is(err, handoff.ErrClosed) {
				t.Errorf("Upgrade() = %v, want ErrClosed", err)
			}
		})
		calls.Go(func() {
			if err := up.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
		})
		calls.Go(func() {
			if s := up.Status(); s.State != handoff.StateClosed {
				t.Errorf("Status().State = %s, want closed", s.State)
			}
		})
	}
	calls.Wait()
}

// TestShutdownFolder ends a service that was ready, and one that was not: the folder that
// Config.Name made is gone, and one that the user chose is empty.
func TestShutdownFolder(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("test-%d", os.Getpid())
	named := filepath.Dir(control.Path(name))
	chosen := filepath.Join(testenv.ShortDir(t), "c")
	for i, cfg := range []handoff.Config{
		{Name: name},
		{Name: name, ControlSocket: filepath.Join(chosen, "s")},
		{Name: name, PIDFile: filepath.Join(named, "pid")},
	} {
		cfg.Mode, cfg.UpgradeSignals, cfg.StopSignals = handoff.Takeover, []os.Signal{}, []os.Signal{}
		up, err := handoff.New(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		if i != 0 {
			err = up.Ready()
		}
		if err := errors.Join(err, up.Shutdown(t.Context())); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
		if _, err := os.Lstat(named); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s after the end of %+v: %v, want no folder", named, cfg, err)
		}
	}
	if all, err := os.ReadDir(chosen); err != nil || len(all) != 0 {
		t.Errorf("%s after the end: %v, %v, want an empty folder", chosen, all, err)
	}
}

// TestShutdownAccepting has connections arrive while the service stops: Shutdown does
// not return before Accept has returned the last one, and its user has closed it.
func TestShutdownAccepting(t *testing.T) {
	t.Parallel()
	for range testenv.Times(20, 200) {
		up := newUpgrader(t, handoff.Config{})
		ln, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Ready(); err != nil {
			t.Fatal(err)
		}
		var over atomic.Bool
		var late atomic.Int64
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if over.Load() {
						late.Add(1)
					}
					_ = c.Close()
				}
			})
			all.Go(func() {
				for {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						return // the listener is closed
					}
					_ = c.Close()
				}
			})
		}
		for up.Status().Accepted < 10 { // which lets others run
		}
		if err := up.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		over.Store(true)
		all.Wait()
		if n := late.Load(); n > 0 {
			t.Fatalf("%d connections were accepted after Shutdown had returned", n)
		}
	}
}

// TestCloseBeforeReady closes the first process of a line that was never ready: what it
// has bound is gone.
func TestCloseBeforeReady(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	control, path := filepath.Join(dir, "c", "s"), filepath.Join(dir, "u")
	up := newUpgrader(t, handoff.Config{ControlSocket: control})
	if _, err := up.Listen(t.Context(), "unix", path); err != nil {
		t.Fatal(err)
	}
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{control, path} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s after Close(): %v, want none", path, err)
		}
	}
}

// TestCloseErrors has Close cut a connection, and find a file that its owner, the
// Upgrader, has not closed: it returns the second error, and Shutdown both.
func TestCloseErrors(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	in, out := net.Pipe()
	defer out.Close()
	up.Track(in)
	f, err := os.Open(os.DevNull)
	if err := errors.Join(err, up.AddFile("null", f), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := up.Close(); !errors.Is(err, os.ErrClosed) || errors.Is(err, context.Canceled) {
		t.Errorf("Close() = %v, want os.ErrClosed alone", err)
	}
	if err := up.Shutdown(t.Context()); !errors.Is(err, os.ErrClosed) || !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown() = %v, want os.ErrClosed and Canceled", err)
	}
}
