package spawn

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// awaitEnd waits for the end of a child of this process and returns how it has ended: nil
// for exit status 0, else an *[Exit]. It leaves the child to be waited for (WNOWAIT,
// waitid(2)): until that is done the kernel gives the number of the process, which is that
// of its group, to no other.
func awaitEnd(cmd *exec.Cmd) error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("waitid", err)
		case info.Code == cldExited && status(&info) == 0:
			return nil
		default:
			return &Exit{PID: cmd.Process.Pid, info: info}
		}
	}
}

// reap does that: the number of a child that has ended can be another process's then.
func reap(cmd *exec.Cmd) { _, _ = cmd.Process.Wait() }

// Values of si_code (sigaction(2); include/uapi/asm-generic/siginfo.h).
const (
	cldExited = 1
	cldDumped = 3
)

// status returns si_status, the sixth number, or the seventh where pointers are aligned to
// eight bytes: after si_signo, si_errno, si_code, si_pid and si_uid.
func status(info *unix.Siginfo) int {
	return int(unsafe.Slice((*int32)(unsafe.Pointer(info)), 7)[4+unsafe.Sizeof(uintptr(0))/4])
}

// An Exit says how a process has ended that has not ended with exit status 0.
type Exit struct {
	PID  int
	info unix.Siginfo
}

// Code returns the exit status, or -1 if a signal has ended the process.
func (e *Exit) Code() int {
	if e.info.Code != cldExited {
		return -1
	}
	return status(&e.info)
}

// Signal returns the signal that has ended the process, or 0.
func (e *Exit) Signal() syscall.Signal {
	if e.info.Code == cldExited {
		return 0
	}
	return syscall.Signal(status(&e.info))
}

// Error says the same as that of an [exec.ExitError].
func (e *Exit) Error() string {
	switch e.info.Code {
	case cldExited:
		return "exit status " + strconv.Itoa(e.Code())
	case cldDumped:
		return "signal: " + e.Signal().String() + " (core dumped)"
	}
	return "signal: " + e.Signal().String()
}
