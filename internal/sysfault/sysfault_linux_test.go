package sysfault_test

import (
	"errors"
	"io"
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

// TestClose has close(2) fail, which closes all the same.
func TestClose(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rc, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := -1
	if err := rc.Control(func(fd uintptr) { number = int(fd) }); err != nil {
		t.Fatal(err)
	}
	var cerr error
	err = sysfault.OnThread(func(c sysfault.Call) syscall.Errno {
		if int(c.Args[0]) == number {
			return unix.EIO
		}
		return 0
	}, func() { cerr = unix.Close(number) }, unix.SYS_CLOSE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil || !errors.Is(cerr, unix.EIO) {
		t.Fatalf("OnThread: %v; Close() = %v, want EIO", err, cerr)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the pipe of the closed descriptor: %d, %v, want EOF", n, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err) // of /dev/null
	}
}
