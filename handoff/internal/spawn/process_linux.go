package spawn

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// withPidfd makes the start of a process put a descriptor of it into fd, which stays
// -1 where the kernel has none (clone(2), CLONE_PIDFD).
func withPidfd(fd *int) *syscall.SysProcAttr { return &syscall.SysProcAttr{PidFD: fd} }

// pollable returns a file of a pidfd that readable can wait for, or nil where there is
// none.
func pollable(pidfd int) *os.File {
	if pidfd < 0 {
		return nil
	}
	if err := unix.SetNonblock(pidfd, true); err != nil { // os.NewFile looks at that
		_ = unix.Close(pidfd)
		return nil
	}
	return os.NewFile(uintptr(pidfd), "pidfd")
}

// readable waits until the process of a pidfd has ended, and returns false when the
// pidfd is closed before that.
func readable(pidfd *os.File) bool {
	rc, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	err = rc.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
	return err == nil
}

// Explain turns the usual errors of a start into advice.
func (p *Program) Explain(err error) error {
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w: %s is being written: install a new version by rename, not by overwriting it: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: %s is not built for this machine, or a script without #!: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.ENOENT): // Check has found the program
		return fmt.Errorf("%w: the interpreter or loader that %s names does not exist: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: %s may not be executed: chmod +x it, and mount its file system without noexec: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w: no descriptors left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=): %w", failure.Start, err)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("%w: no process left for this user: raise RLIMIT_NPROC (ulimit -u, TasksMax=): %w", failure.Start, err)
	}
	return fmt.Errorf("%w: %w", failure.Start, err)
}
