//go:build !linux

package rebind

import "github.com/seed-11c92bf9/baton/handoff/internal/failure"

type process struct{}

func newProcess(int) *process { return nil }

func (*process) await() bool { return false }

func (*process) dup() (int, error) { return 0, failure.Unsupported }

func (*process) stop() {}

func (*process) close() {}

// OpenProcess needs Linux.
func OpenProcess(int) []int { return nil }
