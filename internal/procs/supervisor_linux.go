package procs

import (
	"fmt"
	"os"
)

// EnvSupervisor is a variable by which a process says to those that it starts that it
// keeps running when they end: its process ID, and when the kernel started it. So one
// that a process of another container has inherited says nothing there.
const EnvSupervisor = "BATON_SUPERVISOR"

// Supervisor returns what this process sets EnvSupervisor to; empty without proc(5).
func Supervisor() string { return supervisor(os.Getpid()) }

// Supervises reports whether the process pid has set EnvSupervisor.
func Supervises(pid int) bool {
	name := supervisor(pid)
	return name != "" && os.Getenv(EnvSupervisor) == name
}

func supervisor(pid int) string {
	started, err := statField(pid, 22)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d-%d", pid, started)
}
