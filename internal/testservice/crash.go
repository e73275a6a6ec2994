package testservice

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// Crash kills a process and returns when the kernel has closed all that it had, as a
// supervisor sees its end: the environment, by which package procs knows it, goes before.
func Crash(tb testing.TB, pid int) {
	tb.Helper()
	p, err := procs.OpenPidfd(pid)
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := errors.Join(p.Kill(), p.Wait(ctx)); err != nil {
		tb.Fatal(err)
	}
}
