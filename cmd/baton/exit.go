package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
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
	exitNoStart     exit = 16
	exitAppFailed   exit = 17
	exitNoSocket    exit = 18
)

// exitTexts says what each exit status means: in the help, in the manual, and, as
// a test wants it, in doc.go.
func exitTexts() []struct {
	exit exit
	text string
} {
	return []struct {
		exit exit
		text string
	}{
		{exitDone, "done"},
		{exitOther, "none of the below"},
		{exitUsage, "wrong usage"},
		{exitNoServer, "no server: there is no control socket"},
		{exitStale, "no server: its control socket is left over from one that was killed"},
		{exitNotAllowed, "not allowed: the server belongs to another user"},
		{exitUnsupported, "the server is of another version, or its mode can't do that"},
		{exitNoSpace, "a disk is full"},
		{exitFailed, "the upgrade has failed before the new version was ready; the old one serves on"},
		{exitRolledBack, "the upgrade was rolled back: the new version was ready, or somebody wanted it; the old one serves on"},
		{exitTimeout, "the upgrade took too long; the old version serves on"},
		{exitInProgress, "another upgrade is under way"},
		{exitNotNow, "not now: the server is not ready, or no upgrade is under way"},
		{exitTooLate, "too late: the upgrade is committed"},
		{exitProblem, "doctor has found a problem"},
		{exitBrokeOff, "the server broke off, says nothing, or is about to end"},
		{exitNoStart, "run: the app can't be started: it is missing, or no program"},
		{exitAppFailed, "run: the app has failed for good, or had to be killed in the end"},
		{exitNoSocket, "run: a socket can't be bound: its address is in use, say"},
	}
}

// exitText is the part of the help that lists them.
func exitText() string {
	var b strings.Builder
	b.WriteString("The exit status tells scripts what happened:")
	for _, s := range exitTexts() {
		fmt.Fprintf(&b, "\n  %-3d %s", s.exit, s.text)
	}
	return b.String()
}

// The program's own conditions.
var (
	errUsage   = errors.New("usage")
	errProblem = errors.New("a problem was found")
	// errSilent is of those that end as ErrNoAnswer does: nobody knows what has
	// become of the server.
	errSilent = errors.New("the server says nothing: it hangs, or is stopped: see what its process does (its pid is in its log, or fuser(1) has it)")
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
		{supervisor.ErrStart, exitNoStart, "no-start"},
		{supervisor.ErrFailed, exitAppFailed, "app-failed"},
		{supervisor.ErrListen, exitNoSocket, "no-socket"},
		{control.ErrNoServer, exitNoServer, "no-server"},
		{control.ErrStale, exitStale, "stale-socket"},
		{syscall.ENOSPC, exitNoSpace, "no-space"},
		{handoff.ErrPeerRefused, exitNotAllowed, "not-allowed"},
		{handoff.ErrTimeout, exitTimeout, "timeout"},
		{handoff.ErrRolledBack, exitRolledBack, "rolled-back"},
		{handoff.ErrStart, exitFailed, "failed"},
		{handoff.ErrSuccessorDied, exitFailed, "failed"},
		{handoff.ErrAborted, exitFailed, "failed"},
		{handoff.ErrTransfer, exitFailed, "failed"},
		{handoff.ErrInProgress, exitInProgress, "in-progress"},
		{handoff.ErrNotReady, exitNotNow, "not-now"},
		{handoff.ErrCommitted, exitTooLate, "too-late"},
		{handoff.ErrVersion, exitUnsupported, "unsupported"},
		{handoff.ErrProtocol, exitUnsupported, "unsupported"},
		{handoff.ErrUnsupported, exitUnsupported, "unsupported"},
		{errors.ErrUnsupported, exitUnsupported, "unsupported"},
		{control.ErrNoAnswer, exitBrokeOff, "broke-off"},
		{errSilent, exitBrokeOff, "no-answer"},
		{handoff.ErrClosed, exitBrokeOff, "broke-off"},
	}
}

// statusOf returns the exit status that an error leads to, and its name.
func statusOf(err error) (exit, string) {
	if err == nil {
		return exitDone, ""
	}
	got, name := exitOther, "other"
	var ue *handoff.UpgradeError
	if errors.As(err, &ue) {
		got, name = exitFailed, "failed"
	}
	for _, s := range statuses() {
		if errors.Is(err, s.err) {
			got, name = s.exit, s.name
			break
		}
	}
	if got == exitFailed && ue != nil && ue.Outcome == handoff.OutcomeRolledBack {
		return exitRolledBack, "rolled-back" // as the history has it
	}
	return got, name
}
