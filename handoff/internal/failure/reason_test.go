package failure_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// TestReasons finds each reason by itself, with a name and a text that no other has.
func TestReasons(t *testing.T) {
	t.Parallel()
	names, texts := map[string]bool{}, map[string]bool{}
	for r := failure.None; r <= failure.Last; r++ {
		if names[r.Name()] || r.Name() == "" || strings.Trim(r.Name(), "abcdefghijklmnopqrstuvwxyz-") != "" {
			t.Errorf("reason %d has the name %q", r, r.Name())
		}
		if texts[r.Error()] || r.Error() == "" {
			t.Errorf("%s has the text %q, as another has", r.Name(), r.Error())
		}
		names[r.Name()], texts[r.Error()] = true, true
		if r == failure.None {
			continue
		}
		if got := failure.Of(fmt.Errorf("around: %w", r)); got != r {
			t.Errorf("Of(%s) = %s", r.Name(), got.Name())
		}
		if e := r.Exit(); e < 1 || e > 15 {
			t.Errorf("%s has the exit status %d", r.Name(), e)
		}
	}
}

// TestNumbers keeps the numbers that are on the wire: a new reason goes to the end.
func TestNumbers(t *testing.T) {
	t.Parallel()
	want := strings.Fields(`none other in-progress not-ready in-probation no-upgrade no-successor not-started
		successor-died predecessor-died timeout hung aborted rolled-back canceled peer-refused version protocol transfer
		committed not-taken in-doubt closed not-stored unsupported no-space no-server stale no-answer too-late mismatch`)
	if len(want) != int(failure.Last)+1 {
		t.Errorf("there are %d reasons, want %d", failure.Last+1, len(want))
	}
	for i, name := range want {
		if got := failure.Reason(i).Name(); got != name {
			t.Errorf("reason %d is %s, want %s", i, got, name)
		}
	}
}

// TestOf takes the reason that says most.
func TestOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want failure.Reason
	}{
		{nil, failure.None},
		{errors.New("x"), failure.Other},
		{os.ErrNotExist, failure.Other}, // a missing file is no missing server
		{net.ErrClosed, failure.Other},  // nor a closed connection the upgrader's end
		{errors.ErrUnsupported, failure.Unsupported},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, failure.NoSpace},
		{fmt.Errorf("%w: %w", failure.Start, syscall.ENOSPC), failure.NoSpace},
		{fmt.Errorf("%w: %w", failure.RolledBack, failure.Timeout), failure.Timeout},
		{fmt.Errorf("%w: %w", failure.Unsupported, failure.Start), failure.Start},
	} {
		if got := failure.Of(c.err); got != c.want {
			t.Errorf("Of(%v) = %s, want %s", c.err, got.Name(), c.want.Name())
		}
	}
}

// TestMatches has each reason match what its documentation says, and no more.
func TestMatches(t *testing.T) {
	t.Parallel()
	wider := map[failure.Reason]error{
		failure.Closed: net.ErrClosed, failure.Unsupported: errors.ErrUnsupported, failure.NoSpace: syscall.ENOSPC,
		failure.NoServer: os.ErrNotExist, failure.Hung: failure.Timeout, failure.Canceled: failure.RolledBack,
	}
	all := []error{context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded}
	for _, err := range wider {
		all = append(all, err)
	}
	for r := failure.None; r <= failure.Last; r++ {
		for _, err := range all {
			if got, want := errors.Is(r, err), r == err || wider[r] == err; got != want {
				t.Errorf("%s matches %q: %v, want %v", r.Name(), err, got, want)
			}
		}
		var ne net.Error
		if got, want := errors.As(r, &ne) && ne.Timeout(), r == failure.Timeout || r == failure.Hung; got != want {
			t.Errorf("%s is a net.Error with a timeout: %v, want %v", r.Name(), got, want)
		}
	}
}

// TestUnknown keeps a number that only a newer peer knows.
func TestUnknown(t *testing.T) {
	t.Parallel()
	r := failure.Reason(70_000)
	if r.Name() != "other" || r.Exit() != 1 || r.Unwrap() != nil || !strings.Contains(r.Error(), "70000") {
		t.Errorf("%v: %s, exit status %d, %v", r, r.Name(), r.Exit(), r.Unwrap())
	}
}

// TestAgain tells the errors of an Accept that pass from those that stay.
func TestAgain(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]bool{
		syscall.ENOMEM: true, syscall.ENOBUFS: true, syscall.EMFILE: true, syscall.EPROTO: true,
		syscall.EBADF: false, syscall.EINVAL: false,
	} {
		err := failure.Again(&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)})
		temporary, ok := err.(interface{ Temporary() bool })
		if !errors.Is(err, errno) || want != (ok && temporary.Temporary()) {
			t.Errorf("%v: temporary is not %v", err, want)
		}
	}
	if err := failure.Again(nil); err != nil {
		t.Errorf("Again(nil) = %v", err)
	}
}
