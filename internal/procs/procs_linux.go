package procs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Has reports whether the process has the mark. One that has ended has none,
// also before its parent has waited for it.
func Has(pid int, mark string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && strings.Contains(string(env), mark)
}

// Marked returns the processes that have the mark, but for this one.
func Marked(mark string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is good
	var pids []int
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && pid != os.Getpid() && Has(pid, mark) {
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
