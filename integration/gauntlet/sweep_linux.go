package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/seed-11c92bf9/baton/handoff"
)

// sweep removes the control socket, as a program that cleans folders up does, or the
// folder with it. The service has to make it again: otherwise a file is missing after
// the round.
func (rd *round) sweep() error {
	dir := filepath.Join(rd.set.Dir, "ctl")
	if rd.rng.IntN(2) == 0 {
		return os.Remove(filepath.Join(dir, "s"))
	}
	return os.RemoveAll(dir)
}

// sweepAt sweeps at a step.
func sweepAt(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came {
			return false, err
		}
		return true, rd.sweep()
	}
}

// sweepBefore sweeps, and triggers the upgrade: by a successor that the driver starts, which
// does not find its predecessor by the path, or by a signal.
func sweepBefore(hand bool) func(context.Context, *round) (bool, error) {
	return func(_ context.Context, rd *round) (bool, error) {
		if err := rd.sweep(); err != nil {
			return false, err
		}
		rd.hand = hand
		return true, rd.trigger()
	}
}
