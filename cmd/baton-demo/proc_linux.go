package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/seed-11c92bf9/baton/internal/procs"

	"golang.org/x/sys/unix"
)

// supported says whether the demo can run here.
func supported() error { return nil }

// interrupts are the signals that end the demo early; SIGPIPE, when no process reads
// what it prints.
func interrupts() []os.Signal {
	return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE}
}

// ignorePipe makes writing to a pipe without a reader an error, which for
// standard output is the end of the program otherwise (os/signal, SIGPIPE).
func ignorePipe() { signal.Ignore(syscall.SIGPIPE) }

// prepare makes cmd end with this process, and keeps the terminal's signals
// from it: the demo ends its processes in order.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// adopt makes this process the parent of processes whose own parent has ended
// (prctl(2), PR_SET_CHILD_SUBREAPER): successors are children of their
// predecessors, and this process has to wait for them.
func adopt() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// reap waits for the end of an adopted process; it is nothing if pid is no child
// of ours (any more).
func reap(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func stopSignal(pid int) error {
	return os.NewSyscallError("kill", syscall.Kill(pid, syscall.SIGTERM))
}

// marked returns the processes whose environment holds the entry mark.
func marked(mark string) []int { return procs.Marked(mark + "\x00") }

// killAll kills processes.
func killAll(pids []int) (err error) {
	for _, pid := range pids {
		if e := syscall.Kill(pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, os.NewSyscallError("kill", e))
		}
	}
	return err
}
