package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
)

// now returns a time that all processes of the machine share, and that steps of the
// wall clock don't change.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(os.NewSyscallError("clock_gettime", err))
	}
	return ts.Nano()
}

// wall is the wall clock, which the gauntlet steps where the user allows it: in a
// machine of its own.
type wall struct {
	began time.Duration // its time when now was 0
}

func newWall() wall { return wall{time.Duration(realtime() - now())} }

// step puts the clock ahead of the true time by offset, or behind it.
func (w wall) step(offset time.Duration) error {
	ts := unix.NsecToTimespec(now() + w.began.Nanoseconds() + offset.Nanoseconds())
	return os.NewSyscallError("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
}

func realtime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &ts); err != nil {
		panic(os.NewSyscallError("clock_gettime", err))
	}
	return ts.Nano()
}

// Where the clock may be put: within what the certificates are valid for.
const (
	clockBack  = -30 * time.Minute
	clockAhead = 24 * time.Hour
)

// stepClock puts the clock far ahead at a step, or back from there.
func stepClock(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came {
			return false, err
		}
		to := clockAhead
		before := realtime() - now()
		if before > (rd.wall.began + clockAhead/2).Nanoseconds() {
			to = clockBack
		}
		if err := rd.wall.step(to); err != nil {
			return false, err
		}
		if by := time.Duration(realtime() - now() - before); by.Abs() < clockAhead/2 {
			return false, fmt.Errorf("the clock was stepped by %v, want a day", by)
		}
		return true, nil
	}
}
