//go:build !linux

package main

import (
	"context"
	"runtime"
)

// machineChecks examine the kernel and this user's limits.
func machineChecks(context.Context) []check {
	return []check{{"system", func() finding {
		return finding{Verdict: problem, Found: runtime.GOOS, Advice: "servers can be replaced on Linux only"}
	}}}
}

func checkServerFiles(int) finding { return finding{Verdict: note, Found: "unknown on this system"} }

func roomFor(path string) finding { return finding{Verdict: ok, Found: path} }
