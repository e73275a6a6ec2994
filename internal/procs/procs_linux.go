package procs

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Has reports whether the process has the mark. One that has ended has none,
// also before its parent has waited for it.
func Has(pid int, mark string) bool {
	env, err := environ(pid)
	for limit := time.Now().Add(time.Second); err == nil && env == "" && inExec(pid) && time.Now().Before(limit); {
		time.Sleep(100 * time.Microsecond)
		env, err = environ(pid)
	}
	if err == nil && env == "" {
		env, _ = environ(pid) // execve(2) can have ended after the read
	}
	return strings.Contains(env, mark)
}

func environ(pid int) (string, error) {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return string(env), err
}

// inExec reports whether a process is in execve(2): the kernel has closed its
// descriptors, so that its parent's fork returns, and has not set its environment yet. It
// has memory (vsize) then, and the start of its environment (env_start) is 0 (proc_pid_stat(5)).
func inExec(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false // it has ended
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	const state, vsize, envStart = 3, 23, 50
	fields := strings.Fields(rest)
	return len(fields) > envStart-state && fields[vsize-state] != "0" && fields[envStart-state] == "0"
}

// Marked returns the processes that have the mark, but for this one.
func Marked(mark string) []int {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	names, _ := proc.Readdirnames(-1) // what was read before an error is good
	_ = proc.Close()
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() && Has(pid, mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Kill kills the process if it has the mark: not another one that has its ID since.
func Kill(pid int, mark string) {
	p, err := os.FindProcess(pid) // by a pidfd, where the kernel has them
	if err != nil {
		return
	}
	if Has(pid, mark) {
		_ = p.Kill()
	}
	_ = p.Release() // never fails
}

// KillAll kills the processes that have the mark, and those that they start meanwhile,
// and returns when all have ended.
func KillAll(mark string) {
	for pids := Marked(mark); len(pids) > 0; pids = Marked(mark) {
		var killed []*Pidfd
		for _, pid := range pids {
			if p, err := OpenPidfd(pid); err == nil {
				killed = append(killed, p)
			}
			Kill(pid, mark)
		}
		for _, p := range killed {
			// The ID may be another process's by now, which need not end.
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = p.Wait(ctx)
			cancel()
			_ = p.Close()
		}
	}
}
