package fdpass

import (
	"errors"
	"syscall"
	"time"
)

// Own reports whether err is of a system call that failed for a reason in this process
// or its machine, such as want of memory or of descriptors. It says nothing about the
// peer, and the call may succeed when it is repeated.
func Own(err error) bool {
	for _, e := range [...]error{
		syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE, syscall.EINTR, syscall.EAGAIN, syscall.EIO,
	} {
		if errors.Is(err, e) && !errors.Is(err, ErrTruncated) {
			return true
		}
	}
	return false
}

// retryPause is the time between two tries of a system call.
const retryPause = 5 * time.Millisecond

// A retry bounds how often a system call is repeated.
type retry struct {
	patience time.Duration
	until    time.Time // zero before the first failure
}

func (c *Conn) retry() *retry { return &retry{patience: c.patience} }

// after waits a moment after err and reports whether the call is to be repeated.
func (r *retry) after(err error) bool {
	if err == nil || !Own(err) {
		return false
	}
	now := time.Now()
	if r.until.IsZero() {
		r.until = now.Add(r.patience)
	}
	if !now.Before(r.until) {
		return false
	}
	time.Sleep(retryPause)
	return true
}
