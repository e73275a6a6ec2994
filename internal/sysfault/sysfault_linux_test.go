package sysfault_test

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/sysfault"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

// TestOnThread fails the second of three calls, and none of another thread.
func TestOnThread(t *testing.T) {
	calls := 0
	var errs [3]error
	err := sysfault.OnThread(func(c sysfault.Call) syscall.Errno {
		if calls++; calls == 2 && c.Number == unix.SYS_GETCWD {
			return unix.ENOMEM
		}
		return 0
	}, func() {
		for i := range errs {
			_, errs[i] = unix.Getcwd(make([]byte, 4096))
		}
		done := make(chan struct{})
		go func() { // on a thread that is not filtered
			defer close(done)
			_, _ = os.Getwd()
		}()
		<-done
	}, unix.SYS_GETCWD)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil || calls != 3 {
		t.Fatalf("OnThread: %v, %d calls, want 3", err, calls)
	}
	if errs[0] != nil || !errors.Is(errs[1], unix.ENOMEM) || errs[2] != nil {
		t.Errorf("the calls returned %v, want ENOMEM for the second", errs)
	}
}
