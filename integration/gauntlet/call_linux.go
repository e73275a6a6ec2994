package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/sysfault"
)

// A callClass is system calls one of which fails.
type callClass struct {
	name    string
	numbers []uintptr
	// counts reports whether a call is one that Baton or its engine asks for; nil means
	// yes. A connection that the program can't set up or close is no matter of Baton's.
	counts func(r *rig, pid int, c sysfault.Call) bool
}

func callClasses() []callClass {
	socket := func(arg int) func(*rig, int, sysfault.Call) bool {
		return func(r *rig, pid int, c sysfault.Call) bool { return !r.ofClient(pid, int(c.Args[arg])) }
	}
	return []callClass{
		{"sendmsg", []uintptr{unix.SYS_SENDMSG}, nil},
		{"recvmsg", []uintptr{unix.SYS_RECVMSG}, nil},
		{"accept4", []uintptr{unix.SYS_ACCEPT4}, func(r *rig, pid int, c sysfault.Call) bool {
			local, _ := namesOf(pid, int(c.Args[0]))
			return pathOf(local) == filepath.Join(r.set.Dir, "ctl", "s")
		}},
		{"close", []uintptr{unix.SYS_CLOSE}, socket(0)},
		{"dup", []uintptr{unix.SYS_DUP, unix.SYS_DUP3}, nil},
		{"fcntl", []uintptr{unix.SYS_FCNTL}, socket(0)},
		{"epoll_ctl", []uintptr{unix.SYS_EPOLL_CTL}, socket(2)},
		{"pidfd_open", []uintptr{unix.SYS_PIDFD_OPEN}, nil},
		{"memfd_create", []uintptr{unix.SYS_MEMFD_CREATE}, nil},
		// Go's runtime ends the process where it gets no thread.
		{"clone", []uintptr{unix.SYS_CLONE}, func(_ *rig, _ int, c sysfault.Call) bool { return c.Args[0]&unix.CLONE_THREAD == 0 }},
		{"execve", []uintptr{unix.SYS_EXECVE}, nil},
		{"rename", []uintptr{unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2}, nil},
		{"openat", []uintptr{unix.SYS_OPENAT}, func(_ *rig, _ int, c sysfault.Call) bool { return opensProc(c) }},
	}
}

// callErrnos are the errors of the calls.
var callErrnos = []syscall.Errno{unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.EINTR, unix.EIO}

// namesOf returns the addresses of both ends of a descriptor of a process, nil where
// there is none.
func namesOf(pid, fd int) (local, peer unix.Sockaddr) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, nil // it has ended
	}
	defer unix.Close(process)
	s, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return nil, nil
	}
	defer unix.Close(s)
	local, _ = unix.Getsockname(s) // nil with an error
	peer, _ = unix.Getpeername(s)
	return local, peer
}

func pathOf(a unix.Sockaddr) string {
	if u, ok := a.(*unix.SockaddrUnix); ok {
		return u.Name
	}
	return ""
}

// ofClient reports whether a descriptor of a process is a connection of a client.
func (r *rig) ofClient(pid, fd int) bool {
	local, peer := namesOf(pid, fd)
	path := pathOf(local)
	_, overUnix := peer.(*unix.SockaddrUnix)
	return peer != nil && (!overUnix || path == r.set.Addrs[lnUnix] || path == r.set.Addrs[lnUnixpacket])
}

// opensProc reports whether a call of openat(2) is for a path of proc(5).
func opensProc(c sysfault.Call) bool {
	const proc = "/proc/"
	text := make([]byte, len(proc))
	local := []unix.Iovec{{Base: &text[0]}}
	local[0].SetLen(len(text))
	n, err := unix.ProcessVMReadv(c.Thread, local, []unix.RemoteIovec{{Base: uintptr(c.Args[1]), Len: len(text)}}, 0)
	return err == nil && n == len(text) && string(text) == proc
}

// A callFault is a system call that fails once: the nth of its class in a process of a
// role.
type callFault struct {
	role  role
	class callClass
	errno syscall.Errno
	nth   int
}

// drawCall chooses a call of a role.
func drawCall(rng *rand.Rand, who role) *callFault {
	classes := callClasses()
	return &callFault{who, classes[rng.IntN(len(classes))], callErrnos[rng.IntN(len(callErrnos))], 1 + rng.IntN(3)}
}

// An injector answers the system calls of filtered processes.
type injector struct {
	serving sync.WaitGroup

	mu    sync.Mutex
	pred  int
	fault *callFault // nil: no call fails
	calls int        // of its class, since arm
	hit   bool
}

// arm has a call fail in the upgrade of the process pred.
func (j *injector) arm(pred int, f *callFault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pred, j.fault, j.calls, j.hit = pred, f, 0, false
}

// disarm reports whether a call has failed since arm.
func (j *injector) disarm() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	hit := j.hit
	j.fault, j.hit = nil, false
	return hit
}

// failCall answers a call.
func (r *rig) failCall(c sysfault.Call) syscall.Errno {
	j := &r.calls
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.fault
	if f == nil || j.hit || !slices.Contains(f.class.numbers, c.Number) {
		return 0
	}
	pid := processOf(c.Thread)
	if (pid == j.pred) != (f.role == predecessor) || f.class.counts != nil && !f.class.counts(r, pid, c) {
		return 0
	}
	if j.calls++; j.calls < f.nth {
		return 0
	}
	j.hit = true
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, message{PID: pid, Kind: "call", At: now(), Err: fmt.Sprintf("%s, call %d of the %s: %s", f.class.name, f.nth, f.role, unix.ErrnoName(f.errno))})
	return f.errno
}

// processOf returns the process of a thread.
func processOf(thread int) int {
	if pid, err := strconv.Atoi(statusOf(strconv.Itoa(thread), "Tgid")); err == nil {
		return pid
	}
	return thread
}

// statusOf returns a value of a process's status (proc_pid_status(5)), "" without.
func statusOf(pid, key string) string {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// filtered reports whether the system calls of a process can fail. It and its successors
// have a filter more than this process then.
func filtered(pid int) bool {
	const key = "Seccomp_filters"
	return statusOf(strconv.Itoa(pid), key) != statusOf("self", key)
}

// failAt has a system call fail after a step.
func failAt(who role, step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if came {
			rd.calls.arm(rd.pred, drawCall(rd.rng, who)) // settle disarms, and knows whether it happened
		}
		return false, err
	}
}

// answerCalls answers the calls of a process that has filtered itself, and of those that it
// starts, until none is left.
func (r *rig) answerCalls(pid, number int) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	listener, err := unix.PidfdGetfd(process, number, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	r.calls.serving.Go(func() { // ends with the processes
		if err := errors.Join(sysfault.Serve(listener, r.failCall), unix.Close(listener)); err != nil {
			fmt.Fprintln(r.log, "gauntlet:", err)
		}
	})
	return nil
}

// envFilter has a process of the service filter its system calls.
const envFilter = "BATON_GAUNTLET_FILTER"

// filter filters the system calls of this process, and begins it anew: the filter is of
// one thread, and the listener closes with the call of execve(2), which the driver answers.
func (p *process) filter() error {
	if err := os.Unsetenv(envFilter); err != nil {
		return err
	}
	runtime.LockOSThread()
	var numbers []uintptr
	for _, class := range callClasses() {
		numbers = append(numbers, class.numbers...)
	}
	args, env := os.Args, os.Environ()
	listener, err := sysfault.Install(false, numbers...)
	if err != nil {
		runtime.UnlockOSThread()
		fmt.Fprintln(os.Stderr, "gauntlet: no system call can fail here:", err)
		return nil
	}
	p.say(message{Kind: "filter", Listener: listener})
	return os.NewSyscallError("execve", unix.Exec(args[0], args, env))
}
