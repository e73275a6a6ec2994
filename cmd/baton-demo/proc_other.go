//go:build !linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/seed-11c92bf9/baton/handoff"
)

func supported() error {
	return fmt.Errorf("%w: the demo runs on Linux, this is %s", handoff.ErrUnsupported, runtime.GOOS)
}

func interrupts() []os.Signal { return []os.Signal{os.Interrupt} }

func ignorePipe() {}

func prepare(*exec.Cmd) {}

func adopt() error { return supported() }

func reap(int) {}

func stopSignal(int) error { return supported() }

func marked(string) []int { return nil }

func killAll([]int) error { return nil }
