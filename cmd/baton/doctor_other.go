//go:build !linux

package main

import (
	"context"
	"runtime"
)

// machineChecks look at the kernel and at this user's limits.
func machineChecks(context.Context) []check {
	return []check{{"system", func() finding {
		return finding{Verdict: problem, Found: runtime.GOOS, Advice: "servers can be replaced on Linux only"}
	}}}
}

func checkServerFiles(int) finding { return finding{Verdict: note, Found: "not known here"} }

func roomFor(path string) finding { return finding{Verdict: ok, Found: path} }
