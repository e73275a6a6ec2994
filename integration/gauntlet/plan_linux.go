package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A plan says how the next process of a service fails. The process reads it once.
type plan struct {
	At, How   string
	Probation time.Duration // of its own successors; negative means none
	Wait      time.Duration // at the place, before it fails
}

// Where a process fails.
const (
	atStart     = "start"     // before New
	atJoined    = "joined"    // it has the sockets
	atListening = "listening" // before Ready
	atProbation = "probation" // after Ready
)

// How it fails.
const (
	howExit0     = "exit 0"
	howExit1     = "exit 1"
	howPanic     = "panic"
	howHang      = "hang"
	howEat       = "eat memory"
	howAbort     = "abort"
	howUnhealthy = "unhealthy"
	howNoFile    = "no descriptors"
)

// fatal reports whether the process ends by itself.
func (p plan) fatal() bool {
	switch p.How {
	case howExit0, howExit1, howPanic, howEat:
		return true
	}
	return false
}

const planName = "plan"

func (p plan) write(dir string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, planName+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, planName))
}

func readPlan(dir string) plan {
	var p plan
	path := filepath.Join(dir, planName)
	b, err := os.ReadFile(path)
	if err != nil {
		return p
	}
	_ = os.Remove(path) // the driver writes the next one
	if err := json.Unmarshal(b, &p); err != nil {
		panic(err)
	}
	return p
}

func (p plan) probation() time.Duration {
	if p.Probation == 0 {
		return defaultProbation
	}
	return p.Probation
}

const defaultProbation = 100 * time.Millisecond

// act carries out the plan, if it is for this place.
func (p *process) act(at string) {
	if p.plan.At != at || p.plan.How == howUnhealthy {
		return
	}
	if p.plan.Wait > 0 {
		<-time.After(p.plan.Wait)
	}
	p.say(message{Kind: "plan"})
	switch p.plan.How {
	case howExit0:
		os.Exit(0)
	case howExit1:
		os.Exit(1)
	case howPanic:
		panic("a planned panic")
	case howHang:
		select {}
	case howAbort:
		_ = p.up.Abort(errors.New("a planned abort")) // the driver sees the result
	case howEat:
		limit := syscall.Rlimit{Cur: 3 << 30, Max: 3 << 30}
		if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
			panic(err)
		}
		var all [][]byte
		for { // not touched, so that the memory of other processes is not swapped
			all = append(all, make([]byte, 256<<20))
			all[len(all)-1][0] = 1
		}
	case howNoFile:
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			panic(err)
		}
		n := uint64(len(open))
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
}
