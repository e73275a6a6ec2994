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
	if err == nil {
		return nil // before errno, which is allocated
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) || !slices.Contains(passing, errno) {
		return err
	}
	return again{err}
}

type again struct{ error }

func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }
func (a again) Unwrap() error { return a.error }
