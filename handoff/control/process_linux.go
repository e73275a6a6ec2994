package control

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// awaitEnd waits until a process has ended. It takes the descriptor of it
// (pidfd_open(2)), which the poller reports readable then.
func awaitEnd(ctx context.Context, fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil { // or the poller would not have it
		_ = unix.Close(fd) // only looked at
		return os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	f := os.NewFile(uintptr(fd), "process")
	defer f.Close() // likewise
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(aLongTimeAgo()) }) // a closed one needs none
	defer stop()
	var perr error
	err = rc.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			perr = os.NewSyscallError("poll", err)
			return true
		}
		return n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("control: drain: %w", context.Cause(ctx))
	}
	return errors.Join(err, perr)
}
