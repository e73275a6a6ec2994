package procs_test

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/sysfault"
)

// TestPidfd waits for the end of a process, and no longer than its context, or until
// Close.
func TestPidfd(t *testing.T) {
	t.Parallel()
	t.Run("events", func(t *testing.T) { testPidfd(t, procs.OpenPidfd) })
	t.Run("polled", func(t *testing.T) {
		testPidfd(t, func(pid int) (p *procs.Pidfd, err error) {
			refused := 0
			refuse := func(sysfault.Call) syscall.Errno { // the poller's only call meanwhile
				refused++
				return syscall.ENOSPC
			}
			serr := sysfault.OnThread(refuse, func() { p, err = procs.OpenPidfd(pid) }, unix.SYS_EPOLL_CTL)
			if serr != nil {
				t.Skip(serr)
			}
			if refused == 0 {
				t.Error("the poller has not asked for the descriptor")
			}
			return p, err
		})
	})
}

func testPidfd(t *testing.T, open func(pid int) (*procs.Pidfd, error)) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := open(cmd.Process.Pid)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closed, err := open(cmd.Process.Pid)
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
	again, err := open(cmd.Process.Pid)
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
