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

// The exit statuses that are not [control.ExitStatus]'s alone. All are documented in
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

// exitTexts says what each exit status means, 0 first: in the help, in the manual,
// and, as a test wants it, in doc.go.
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

// exitText is the part of the help that lists them.
func exitText() string {
	var b strings.Builder
	b.WriteString("The exit status tells scripts what happened:")
	for status, text := range exitTexts() {
		fmt.Fprintf(&b, "\n  %-3d %s", status, text)
	}
	return b.String()
}

// The program's own conditions.
var (
	errUsage   = errors.New("usage")
	errProblem = errors.New("a problem was found")
	// errSilent is of those that end as ErrNoAnswer does: what has become of the
	// server is not known.
	errSilent = errors.New("the server says nothing: it hangs, or is stopped: see what its process does (its pid is in its log, or fuser(1) has it)")
)

// statusOf returns the exit status that an error leads to, and its name in JSON.
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
