package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// A Class says how an exchange failed.
type Class string

// The classes, from the first step of an exchange to the last.
const (
	Refused Class = "refused" // no process listens, or the queue is full
	Reset   Class = "reset"   // the connection was reset, or closed under a write
	EOF     Class = "eof"     // the connection ended before the answer
	Timeout Class = "timeout" // no answer in time
	Wrong   Class = "wrong"   // not the answer to the question
	Other   Class = "other"
)

// Classify returns the class of an error, or "" of nil.
func Classify(err error) Class {
	var ne net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errWrong):
		return Wrong
	case errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, fs.ErrNotExist), // a unix socket's path
		errors.Is(err, syscall.EAGAIN): // a unix socket's queue is full, unix(7)
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ECONNABORTED):
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		// net/http's word for it, if it had not sent anything yet; it has no name.
		strings.HasSuffix(err.Error(), "http: server closed idle connection"):
		return EOF
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &ne) && ne.Timeout():
		return Timeout
	}
	return Other
}

// errWrong marks an answer that is not the one to the question.
var errWrong = errors.New("load: wrong answer")

func wrong(what, got, want string) error {
	return fmt.Errorf("%w: %s %q, want %q", errWrong, what, got, want)
}
