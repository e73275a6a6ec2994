package fdx

import (
	"os"

	"golang.org/x/sys/unix"
)

// seals make a blob immutable, its set of seals included.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// NewBlob returns an empty anonymous file in memory (memfd_create(2)) that can
// be sealed. The caller closes it. name, of at most 249 bytes, shows in
// /proc/PID/fd alone.
func NewBlob(name string) (*os.File, error) {
	// Without one of MFD_EXEC and MFD_NOEXEC_SEAL (both since Linux 6.3) the
	// kernel logs a warning, and refuses where sysctl vm.memfd_noexec is 2.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Seal makes f, which [NewBlob] made, immutable for good, through whichever
// descriptor. EBUSY: a writable mapping of it exists.
func Seal(f *os.File) error {
	return Borrow(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		return os.NewSyscallError("fcntl(F_ADD_SEALS)", err)
	})
}

// Sealed reports whether fd, which it borrows, is a file that no process can change
// any more: what [Seal] does. A file that can't be sealed is not sealed, which
// is no error.
func Sealed(fd int) (bool, error) {
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err == unix.EINVAL { // no memfd: fcntl(2), ERRORS
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("fcntl(F_GET_SEALS)", err)
	}
	return got&seals == seals, nil
}
