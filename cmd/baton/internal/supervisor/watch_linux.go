package supervisor

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// watch calls ended when a process that is not our child has ended, unless stop is
// called before. Its parent waits for it; how it has ended we can't know.
func watch(pid int, ended func()) (stop func(), err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		_ = fdx.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	done := make(chan struct{})
	go func() { // ends with the process, or with stop, which waits
		defer close(done)
		defer fdx.Close(fd)
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
			_, err := unix.Poll(fds, -1)
			switch {
			case err == unix.EINTR:
			case fds[1].Revents != 0 || err != nil:
				return
			case fds[0].Revents != 0:
				ended()
				return
			}
		}
	}()
	return func() {
		one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // any number but 0
		_, _ = unix.Write(wake, one[:])        // an eventfd with room
		<-done
		_ = fdx.Close(wake)
		runtime.KeepAlive(one)
	}, nil
}
