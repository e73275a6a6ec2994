package main

import (
	"bytes"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/terminal"
)

// TestShowReport names both processes. A successor on plain tableflip, after a
// downgrade in mode Inherit, has not sent its process ID.
func TestShowReport(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		successor handoff.Process
		want      string
	}{
		{handoff.Process{PID: 12, Version: "two"}, "pid 12 (two) has replaced pid 11 in 0s\nwarning: look here\n"},
		{handoff.Process{}, "the successor has replaced pid 11 in 0s\nwarning: look here\n"},
	} {
		var out bytes.Buffer
		a := &app{screen: terminal.Sized(&out, 0, 0)}
		a.showReport(&handoff.Report{Predecessor: handoff.Process{PID: 11}, Successor: tt.successor, Warnings: []string{"look here"}}, control.WaitCommit)
		if out.String() != tt.want {
			t.Errorf("%+v: %q, want %q", tt.successor, out.String(), tt.want)
		}
	}
}
