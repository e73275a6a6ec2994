package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// processes returns the processes of the service that have not ended.
func (r *rig) processes() []int {
	pids := r.look()
	if len(pids) == 0 {
		// A look takes a while: a process can end before its turn, after starting one
		// that was not in the list.
		pids = r.look()
	}
	return pids
}

// look lists the processes in one pass, which is no atomic snapshot.
func (r *rig) look() []int {
	r.reap()
	mark := r.mark + "\x00"
	marked := procs.Marked(mark)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, pid := range marked { // one may end before it says a word
		if !r.wrappers[pid] {
			r.pids[pid] = true
		}
	}
	for pid := range r.pids {
		if !slices.Contains(marked, pid) && running(pid) && (ending(pid) || procs.Has(pid, mark)) {
			marked = append(marked, pid)
		}
	}
	return slices.DeleteFunc(marked, r.wraps)
}

// ending reports whether a process is about to end: it gives up its memory, and its
// environment with it, before its files. A live process without our mark has taken over
// the process ID.
func ending(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err != nil || len(env) == 0 // ESRCH on newer kernels
}

// known returns the number of processes that have sent a message and have not ended.
func (r *rig) known() (n int) {
	r.reap()
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid := range r.pids {
		if running(pid) {
			n++
		}
	}
	return n
}

// reap waits for children that have ended, adopted ones included. All are in the
// process group of the process of their line that the driver started, also those that
// ended before they sent a message.
func (r *rig) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait(syscall.WNOHANG)
	for pid := range r.pids {
		if stateOf(pid) == 0 {
			delete(r.pids, pid)
		}
	}
	for pid := range r.wrappers {
		// In a process group of its own.
		if _, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); err != nil && stateOf(pid) == 0 {
			delete(r.wrappers, pid)
		}
	}
}

// wait waits for children of the service's process groups, until there is none or,
// with WNOHANG, none that has ended, and forgets groups that are no more. Its
// caller holds r.mu.
func (r *rig) wait(options int) {
	r.groups = slices.DeleteFunc(r.groups, func(group int) bool {
		for {
			pid, err := syscall.Wait4(-group, nil, options, nil)
			if pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		return errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) // one that has no zombie, either
	})
}

// stateOf returns the state of a process as proc_pid_stat(5) names it, or 0 if
// there is none.
func stateOf(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), ") ") // a name with ") " is not ours
	if !ok || rest == "" {
		return 0
	}
	return rest[0]
}

// running reports whether a process has a thread that has not ended. While there
// is one all sockets are open, whatever the first thread's state says.
func running(pid int) bool {
	switch stateOf(pid) {
	case 0, 'X':
		return false
	case 'Z':
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		return err == nil && len(threads) > 1
	}
	return true
}

// adopt makes this process a subreaper, and marks inherited descriptors close-on-exec.
func adopt() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd) // or it is closed already
		}
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}
