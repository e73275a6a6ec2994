package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff"
)

// The program of the service is a link, in the folder of the notes.
const (
	programName = "program"
	programReal = "program.real" // while programName is a wrapper
)

// program returns the path with which processes of the service start.
func (r *rig) program() string { return filepath.Join(r.set.Notes, programName) }

// wrap has the next process that starts be a shell, which puts the link back, starts the
// service as its child and waits for it.
func (r *rig) wrap() error {
	link, kept := r.program(), filepath.Join(r.set.Notes, programReal)
	script := fmt.Sprintf("#!/bin/sh\necho '{\"Kind\":\"wrapper\",\"PID\":'$$'}'\nmv -f '%s' '%s'\n'%s' \"$@\"\nexit $?\n", kept, link, link)
	tmp := link + ".new"
	if err := os.WriteFile(tmp, []byte(script), 0o700); err != nil {
		return err
	}
	if err := os.Rename(link, kept); err != nil {
		return err
	}
	return os.Rename(tmp, link)
}

// unwrap puts the link back if no process has started since wrap.
func (r *rig) unwrap() error {
	err := os.Rename(filepath.Join(r.set.Notes, programReal), r.program())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// wraps reports whether a process is a shell that waits for its child. It belongs to
// that: alone it is a process that is left.
func (r *rig) wraps(pid int) bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return r.wrappers[pid] && err == nil && strings.TrimSpace(string(children)) != ""
}

// wrapper returns the process ID of the successor's wrapper, or 0 if none has started.
func (rd *round) wrapper() int {
	ms := rd.received(rd.first)
	i := slices.IndexFunc(ms, func(m message) bool { return m.Kind == "wrapper" })
	if i < 0 {
		return 0
	}
	return ms[i].PID
}

// killWrapper kills the wrapper alone, at a step: the successor lives.
func killWrapper(step handoff.EventKind) func(context.Context, *round) (bool, error) {
	return func(ctx context.Context, rd *round) (bool, error) {
		came, err := rd.step(ctx, step)
		if err != nil || !came || rd.pid(ctx, successor) == 0 {
			return false, err
		}
		pid := rd.wrapper()
		if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
			return false, nil // it was quicker
		}
		return true, eventually(ctx, func() bool { return !running(pid) })
	}
}
