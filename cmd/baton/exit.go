package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

// exit is an exit status.
type exit int

// The exit statuses that [control.ExitStatus] does not return. All are documented in
// doc.go, and never change.
const (
	exitDone      exit = 0
	exitUsage     exit = 2
	exitProblem   exit = 14
	exitBrokeOff  exit = 15
	exitNoStart   exit = 16
	exitAppFailed exit = 17
	exitNoSocket  exit = 18
)

// exitTexts returns the meaning of each exit status, from 0 up. The help and the manual
// use it, and a test compares doc.go with it.
func exitTexts() []string {
	return []string{
		"done",
		"none of the below",
		"wrong usage",
		"no server: there is no control socket",
		"no server: its control socket is left over from one that was killed",
		"not allowed: the server belongs to another user",
		"the server is of another version, or its mode can't do that",
		"a disk is full",
		"the upgrade has failed before the new version was ready; the old one serves on",
		"the upgrade was rolled back: the new version was ready, or an operator asked for it; the old one serves on",
		"the upgrade took too long; the old version serves on",
		"another upgrade is under way",
		"not now: the server is not ready, or no upgrade is under way",
		"too late: the upgrade is committed",
		"doctor has found a problem",
		"the server broke off, does not answer, or is about to end",
		"run: the app can't be started: it is missing, or no program",
		"run: the app has failed for good, or had to be killed in the end",
		"run: a socket can't be bound: its address is in use, say",
	}
}

// exitText is the list of exit statuses in the help.
func exitText() string {
	var b strings.Builder
	b.WriteString("The exit status tells scripts what happened:")
	for status, text := range exitTexts() {
		fmt.Fprintf(&b, "\n  %-3d %s", status, text)
	}
	return b.String()
}

// Errors of the command itself.
var (
	errUsage   = errors.New("usage")
	errProblem = errors.New("a problem was found")
	// errSilent has the exit status of ErrNoAnswer: the server's state is unknown.
	errSilent = errors.New("the server does not answer: it hangs or is stopped: look at its process (its log has the pid, or use fuser(1))")
)

// statusOf returns the exit status for an error, and the error's kind in JSON.
func statusOf(err error) (exit, string) {
	for _, s := range []struct {
		err  error
		exit exit
		name string
	}{
		{errUsage, exitUsage, "usage"},
		{errProblem, exitProblem, "problem"},
		{errSilent, exitBrokeOff, "no-answer"},
		{supervisor.ErrStart, exitNoStart, "no-start"},
		{supervisor.ErrFailed, exitAppFailed, "app-failed"},
		{supervisor.ErrListen, exitNoSocket, "no-socket"},
	} {
		if errors.Is(err, s.err) {
			return s.exit, s.name
		}
	}
	status, name := control.ExitStatus(err)
	return exit(status), name
}
