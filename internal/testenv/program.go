package testenv

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Program makes path a program with this text. A file that is open for writing can't be
// executed (ETXTBSY), and a process that another test starts meanwhile would inherit
// the descriptor until its own exec (Go issue 22315): so none starts meanwhile.
func Program(tb testing.TB, path string, text []byte) {
	tb.Helper()
	syscall.ForkLock.RLock()
	err := errors.Join(os.WriteFile(path, text, 0o755), os.Chmod(path, 0o755)) // whatever the umask is
	syscall.ForkLock.RUnlock()
	if err != nil {
		tb.Fatal(err)
	}
}

// CopyProgram makes path a program that is the one at from.
func CopyProgram(tb testing.TB, from, path string) {
	tb.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		tb.Fatal(err)
	}
	Program(tb, path, text)
}

// Script returns the path of a shell script in a folder of its own.
func Script(tb testing.TB, text string) string {
	tb.Helper()
	path := filepath.Join(ShortDir(tb), "script")
	Program(tb, path, []byte("#!/bin/sh\n"+text))
	return path
}
