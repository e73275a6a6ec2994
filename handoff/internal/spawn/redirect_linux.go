package spawn

import (
	"os"

	"golang.org/x/sys/unix"
)

// replaceStderr makes descriptor 2 a copy of fd, which it borrows.
func replaceStderr(fd int) error {
	return os.NewSyscallError("dup3", unix.Dup3(fd, 2, 0))
}

// placePipe makes descriptor 2 a copy of w, which it borrows: a writing end that is
// blocking, since what writes to descriptor 2 does not expect EAGAIN.
func placePipe(w int) error {
	if err := unix.SetNonblock(w, false); err != nil {
		return os.NewSyscallError("fcntl(F_SETFL)", err)
	}
	return replaceStderr(w)
}
