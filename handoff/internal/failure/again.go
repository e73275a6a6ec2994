package failure

import (
	"errors"
	"slices"
	"syscall"
)

// passing are the errors of accept(2) that leave the listener as it is: the system is
// short of something, or the error is that of one connection.
var passing = []syscall.Errno{
	syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE, syscall.EINTR, syscall.EPERM, syscall.EIO,
	syscall.ECONNABORTED, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP,
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

// Again makes an error of an Accept that may succeed when it is called again one that
// says so, by Temporary: net/http and others try again then. Of these errors, package
// syscall says it of EMFILE, ENFILE, EINTR and ECONNABORTED alone.
func Again(err error) error {
	if err == nil || !Passes(err) {
		return err
	}
	return again{err}
}

// Passes reports whether the call that has failed with err may succeed when it is made
// again.
func Passes(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(passing, errno)
}

type again struct{ error }

func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }
func (a again) Unwrap() error { return a.error }
