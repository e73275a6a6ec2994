package procs_test

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// TestPidfd waits for the end of a process, and no longer than its context, or until
// Close.
func TestPidfd(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := procs.OpenPidfd(cmd.Process.Pid)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closed, err := procs.OpenPidfd(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait of a running process = %v, want the end of its context", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- closed.Wait(context.Background()) }()
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("Wait of a closed descriptor, of a running process: no error")
	}
	_ = in.Close() // cat ends
	again, err := procs.OpenPidfd(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Wait(t.Context()); err != nil {
		t.Errorf("Wait of a process that ends = %v", err)
	}
	_ = cmd.Wait()
	for _, p := range []*procs.Pidfd{p, again} {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
