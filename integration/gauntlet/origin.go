package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// origin says when a result came about, where, and of what.
type origin struct {
	Began    time.Time `json:"began"`
	Command  string    `json:"command"`
	Revision string    `json:"revision"` // of this repository; empty if git did not tell
	Go       string    `json:"go"`
	Kernel   string    `json:"kernel"`
	CPUs     int       `json:"cpus"`
	Memory   uint64    `json:"memory"` // bytes
}

// newOrigin tells of this process, which has args and began then.
func newOrigin(args []string, began time.Time) origin {
	o := origin{
		Began: began.UTC().Truncate(time.Second), Command: strings.Join(append([]string{"gauntlet"}, args...), " "),
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		modified := ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				o.Revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = "+"
			}
		}
		o.Revision += modified
	}
	// What can't be read stays empty.
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	o.Kernel = strings.TrimSpace(string(kernel))
	o.Memory = memory()
	return o
}

// memory returns the machine's memory in bytes, 0 if that is not known.
func memory() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kb uint64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err != nil {
		return 0
	}
	return kb << 10
}
