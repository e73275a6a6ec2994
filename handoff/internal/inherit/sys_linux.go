package inherit

import (
	"strings"
	"syscall"
)

func closeOnExec(fd int) { syscall.CloseOnExec(fd) }

// cause returns the error of the system call in an error of tableflip's, which wraps
// with %s: only the text is left.
func cause(err error) error {
	for _, errno := range []syscall.Errno{
		syscall.ETXTBSY, syscall.ENOEXEC, syscall.ENOENT, syscall.EACCES, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN,
	} {
		if strings.HasSuffix(err.Error(), errno.Error()) {
			return errno
		}
	}
	return err
}
