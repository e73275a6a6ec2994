package handoff

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// supported reports why a mode can't work here; on Linux all can.
func supported() error { return nil }

// raise sends a signal to this process. It has come when raise returns.
func raise(s os.Signal) {
	n, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	runtime.LockOSThread() // the kernel may take its time for another thread
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), n) // ourselves
}
