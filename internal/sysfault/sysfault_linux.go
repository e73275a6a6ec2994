package sysfault

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Call is a system call that waits for its answer.
type Call struct {
	Thread int // in the PID namespace of the test
	Number uintptr
	Args   [6]uint64
}

// notif and answer are seccomp_notif and seccomp_notif_resp of linux/seccomp.h.
type notif struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// Install filters the system calls with these numbers: those of all threads of the
// process, or of the calling one, which has to be locked to its goroutine for good. It
// returns the listener, for [Serve], close-on-exec. Until that runs the calls wait.
func Install(all bool, calls ...uintptr) (listener int, err error) {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // seccomp_data.nr
	for i, nr := range calls {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: uint32(nr)})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	)
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	privileges := prctl
	if all {
		flags |= unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
		privileges = allThreads
	}
	// seccomp(2) wants CAP_SYS_ADMIN, or this.
	if errno := privileges(unix.PR_SET_NO_NEW_PRIVS, 1); errno != 0 {
		return -1, os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", errno)
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}

func prctl(option, value uintptr) syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, option, value, 0, 0, 0, 0)
	return errno
}

func allThreads(option, value uintptr) syscall.Errno {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, value, 0, 0, 0, 0)
	if errno == unix.ENOTSUP { // with cgo; TSYNC sets it for the other threads
		return prctl(option, value)
	}
	return errno
}

// Serve answers the calls of a listener, which it borrows: with the error that fail
// returns, or by letting the kernel carry them out where that is 0. A close that fails
// closes all the same, as close(2) says of Linux: the number leads to /dev/null then. It
// returns when no filtered thread is left.
func Serve(listener int, fail func(Call) syscall.Errno) error {
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return os.NewSyscallError("poll", err)
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return nil // POLLHUP
		}
		var n notif // zero, which the kernel checks
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
				continue // the thread has ended since
			}
			return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", err)
		}
		a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := fail(Call{int(n.pid), uintptr(n.nr), n.args}); errno != 0 {
			a = answer{id: n.id, errno: -int32(errno)}
			if n.nr == unix.SYS_CLOSE {
				if err := replace(listener, n.id, uint32(n.args[0])); err != nil {
					return err
				}
			}
		}
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)); err != nil && !errors.Is(err, unix.ENOENT) {
			return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_SEND)", err)
		}
	}
}

// addfd is seccomp_notif_addfd of linux/seccomp.h.
type addfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// replace has a descriptor of the thread that waits for its answer lead to /dev/null.
func replace(listener int, id uint64, fd uint32) error {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(null) // the thread has a copy
	a := addfd{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, srcfd: uint32(null), newfd: fd, newfdFlags: unix.O_CLOEXEC}
	if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a)); err != nil && !errors.Is(err, unix.ENOENT) {
		return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_ADDFD)", err)
	}
	return nil
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// OnThread calls f on a thread of its own whose system calls with these numbers fail as
// fail says, and returns when f has returned.
func OnThread(fail func(Call) syscall.Errno, f func(), calls ...uintptr) error {
	type installed struct {
		fd  int
		err error
	}
	ready, done := make(chan installed), make(chan struct{})
	var run func()
	run = func() { // ends with f
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() || hasChildren() {
			go run() // the first thread would not end; the end of one with children can kill those (PR_SET_PDEATHSIG)
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		fd, err := Install(false, calls...)
		if ready <- (installed{fd, err}); err == nil {
			f()
		}
	}
	go run()
	in := <-ready
	if in.err != nil {
		<-done
		return in.err
	}
	err := Serve(in.fd, fail)
	<-done
	return errors.Join(err, os.NewSyscallError("close", unix.Close(in.fd)))
}

// hasChildren reports whether the calling thread has started a process that is left.
func hasChildren() bool {
	pids, err := os.ReadFile("/proc/thread-self/children")
	return err == nil && len(pids) > 0
}
