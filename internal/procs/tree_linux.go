package procs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Children returns the process IDs of the children of this process that have the mark.
func Children(mark string) []int {
	lists, err := filepath.Glob("/proc/self/task/*/children") // proc(5); CONFIG_PROC_CHILDREN
	if err != nil {
		return nil
	}
	var pids []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && Has(pid, mark) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Descends reports whether the process is a descendant of this one. A process that has
// ended, or is in no PID namespace below ours, is not. Without proc(5) the answer is true
// for any process but this one.
func Descends(pid int) bool {
	own := os.Getpid()
	for pid > 1 && pid != own {
		ppid, err := Parent(pid)
		if err != nil {
			_, err := Parent(own)
			return err != nil
		}
		if ppid == own {
			return true
		}
		pid = ppid
	}
	return false
}

// KillTree kills the process pid and its descendants. It stops them first, so that none
// of them starts another meanwhile; one whose parent has ended is not found.
func KillTree(pid int) {
	stopped := make(map[int]*os.Process)
	for grown := true; grown; {
		grown = false
		for p, parent := range tree(pid) {
			if stopped[p] != nil {
				continue
			}
			process, err := os.FindProcess(p) // by a pidfd, where the kernel has them
			if err != nil {
				continue
			}
			// The ID can have become another process's since the list was made.
			if now, err := Parent(p); err != nil || now != parent {
				_ = process.Release() // never fails
				continue
			}
			grown, stopped[p] = true, process
			_ = process.Signal(unix.SIGSTOP) // it has ended
		}
	}
	for _, process := range stopped {
		_ = process.Kill()    // likewise
		_ = process.Release() // never fails
	}
}

// tree returns the process pid and its descendants, each with its parent.
func tree(pid int) map[int]int {
	files, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	parents := make(map[int]int)
	for _, file := range files {
		p, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			continue
		}
		if ppid, err := Parent(p); err == nil {
			parents[p] = ppid
		}
	}
	all := make(map[int]int)
	if parent, ok := parents[pid]; ok {
		all[pid] = parent
	}
	for p := range parents {
		for up := parents[p]; up > 1; up = parents[up] {
			if up == pid {
				all[p] = parents[p]
				break
			}
		}
	}
	return all
}

// Parent returns the parent's process ID.
func Parent(pid int) (int, error) { return statField(pid, 4) }

// statField returns a field after the name (proc_pid_stat(5)).
func statField(pid, number int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, can have spaces and parentheses itself.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= number-3 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return strconv.Atoi(fields[number-3])
}
