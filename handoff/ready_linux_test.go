package handoff_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
)

// TestReadyAtOnce calls Ready from several goroutines: the process becomes the owner
// once.
func TestReadyAtOnce(t *testing.T) {
	t.Parallel()
	for range 20 {
		var owner atomic.Int64
		up := newUpgrader(t, handoff.Config{OnEvent: func(e handoff.Event) {
			if e.Kind == handoff.EventOwner {
				owner.Add(1)
			}
		}})
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				if err := up.Ready(); err != nil {
					t.Errorf("Ready() = %v", err)
				}
			})
		}
		calls.Wait()
		if err := up.Close(); err != nil {
			t.Fatal(err)
		}
		if n := owner.Load(); n != 1 {
			t.Fatalf("%d events %q, want 1", n, handoff.EventOwner)
		}
	}
}

// TestReadyAtStop calls Ready and Close at the same time: either the process serves
// first, or Ready returns an error. The PID file is gone in both cases.
func TestReadyAtStop(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	for range 100 {
		var owner atomic.Int64
		up := newUpgrader(t, handoff.Config{PIDFile: pid, OnEvent: func(e handoff.Event) {
			if e.Kind == handoff.EventOwner {
				owner.Add(1)
			}
		}})
		ready := make(chan error)
		go func() { ready <- up.Ready() }()
		if err := up.Close(); err != nil {
			t.Fatal(err)
		}
		err := <-ready
		if n := owner.Load(); err != nil && (n > 0 || !errors.Is(err, handoff.ErrClosed)) {
			t.Fatalf("Ready() = %v, want ErrClosed; %d events %q, want none", err, n, handoff.EventOwner)
		}
		if _, err := os.Stat(pid); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("PID file after Close(): %v, want none", err)
		}
	}
}
