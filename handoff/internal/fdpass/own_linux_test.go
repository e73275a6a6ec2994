package fdpass_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/sysfault"
)

// TestOwn has the system calls of Send and Recv fail: for a moment, which their callers do
// not see, and for longer than the patience, after which the same frame can be sent and
// received. net repeats a call that returns EINTR itself.
func TestOwn(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.EIO} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			a, b := conns(t)
			patience := func(d time.Duration) {
				a.SetPatience(d)
				b.SetPatience(d)
			}
			var failures atomic.Int64
			fail := func(sysfault.Call) syscall.Errno {
				if failures.Add(-1) >= 0 {
					return errno
				}
				return 0
			}
			for name, call := range map[string]func() error{
				"sendmsg": func() error { return a.Send(1, []byte("x"), nil) },
				"recvmsg": func() error { _, err := b.Recv(); return err },
			} {
				if name == "recvmsg" {
					for range 2 {
						if err := a.Send(1, []byte("x"), nil); err != nil {
							t.Fatal(err)
						}
					}
				}
				err := sysfault.OnThread(fail, func() {
					patience(time.Minute)
					failures.Store(2)
					if err := call(); err != nil {
						t.Errorf("%s fails twice: %v", name, err)
					}
					patience(20 * time.Millisecond)
					failures.Store(1 << 40)
					if err := call(); !fdpass.Own(err) || !errors.Is(err, errno) || !strings.Contains(err.Error(), name) {
						t.Errorf("%s fails on: %v, want %v", name, err, errno)
					}
					failures.Store(0)
					if err := call(); err != nil {
						t.Errorf("%s after that: %v", name, err)
					}
				}, unix.SYS_SENDMSG, unix.SYS_RECVMSG)
				if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
