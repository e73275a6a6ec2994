package spawn

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dup3(2) is called again where it fails.
const (
	dupTries = 5
	dupPause = 5 * time.Millisecond
)

// replaceStderr makes descriptor 2 a copy of fd, which it borrows. What was the journal
// stays it for a program that asks from now on, and for those that this process starts.
func replaceStderr(fd int) error {
	journal := journalVia(fd)
	err := unix.Dup3(fd, 2, 0)
	for tries := 1; err != nil && tries < dupTries; tries++ {
		time.Sleep(dupPause) // another goroutine opens a file (EBUSY, dup(2)), or the kernel is short of memory
		err = unix.Dup3(fd, 2, 0)
	}
	if err != nil {
		return os.NewSyscallError("dup3", err)
	}
	if journal == "" {
		return nil
	}
	return os.Setenv(envJournal, journal)
}

// placePipe makes descriptor 2 a copy of w. It borrows both ends of the pipe, makes the
// writing end blocking, since what writes to descriptor 2 does not expect EAGAIN, and
// the reading end non-blocking, so that it can have a deadline.
func placePipe(r, w int) error {
	if err := errors.Join(unix.SetNonblock(r, true), unix.SetNonblock(w, false)); err != nil {
		return os.NewSyscallError("fcntl(F_SETFL)", err)
	}
	return replaceStderr(w)
}
