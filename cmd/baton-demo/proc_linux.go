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

// supported reports whether the demo can run on this system.
func supported() error { return nil }

// interrupts are the signals that end the demo early. SIGPIPE says that the reader of
// the output has gone.
func interrupts() []os.Signal {
	return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE}
}

// ignorePipe makes writing to a closed pipe an error. For standard output it would end
// the program otherwise (os/signal, SIGPIPE).
func ignorePipe() { signal.Ignore(syscall.SIGPIPE) }

// prepare makes cmd end with this process, and keeps the terminal's signals from it:
// the demo ends its processes in order.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// adopt makes this process a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): it adopts
// successors whose predecessors have ended, and must wait for them.
func adopt() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// reap waits for the end of an adopted process. It does nothing if pid is no child of
// ours.
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
