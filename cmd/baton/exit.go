package main

import (
	"errors"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

// exit is an exit status.
type exit int

// The exit statuses. They are documented in doc.go, and never change.
const (
	exitDone        exit = 0
	exitOther       exit = 1
	exitUsage       exit = 2
	exitNoServer    exit = 3
	exitStale       exit = 4
	exitNotAllowed  exit = 5
	exitUnsupported exit = 6
	exitNoSpace     exit = 7
	exitFailed      exit = 8
	exitRolledBack  exit = 9
	exitTimeout     exit = 10
	exitInProgress  exit = 11
	exitNotNow      exit = 12
	exitTooLate     exit = 13
	exitProblem     exit = 14
	exitBrokeOff    exit = 15
)

// The program's own conditions.
var (
	errUsage   = errors.New("usage")
	errProblem = errors.New("a problem was found")
)

// statuses are tried in order: what says more comes first.
func statuses() []struct {
	err  error
	exit exit
	name string
} {
	return []struct {
		err  error
		exit exit
		name string
	}{
		{errUsage, exitUsage, "usage"},
		{errProblem, exitProblem, "problem"},
		{control.ErrNoServer, exitNoServer, "no-server"},
		{control.ErrStale, exitStale, "stale-socket"},
		{syscall.ENOSPC, exitNoSpace, "no-space"},
		{handoff.ErrPeerRefused, exitNotAllowed, "not-allowed"},
		{handoff.ErrTimeout, exitTimeout, "timeout"},
		{handoff.ErrRolledBack, exitRolledBack, "rolled-back"},
		{handoff.ErrSuccessorDied, exitFailed, "failed"},
		{handoff.ErrAborted, exitFailed, "failed"},
		{handoff.ErrTransfer, exitFailed, "failed"},
		{handoff.ErrInProgress, exitInProgress, "in-progress"},
		{handoff.ErrNotReady, exitNotNow, "not-now"},
		{handoff.ErrCommitted, exitTooLate, "too-late"},
		{handoff.ErrVersion, exitUnsupported, "unsupported"},
		{handoff.ErrProtocol, exitUnsupported, "unsupported"},
		{handoff.ErrUnsupported, exitUnsupported, "unsupported"},
		{control.ErrNoAnswer, exitBrokeOff, "broke-off"},
		{handoff.ErrClosed, exitBrokeOff, "broke-off"},
	}
}

// statusOf returns the exit status that an error leads to, and its name.
func statusOf(err error) (exit, string) {
	if err == nil {
		return exitDone, ""
	}
	for _, s := range statuses() {
		if errors.Is(err, s.err) {
			return s.exit, s.name
		}
	}
	if errors.As(err, new(*handoff.UpgradeError)) {
		return exitFailed, "failed"
	}
	return exitOther, "other"
}
