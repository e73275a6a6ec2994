package fdx

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// RaiseNoFile makes room for need more descriptors: if the soft RLIMIT_NOFILE
// leaves less, it is raised to the hard one. If the hard limit is too low the
// soft one still ends at the hard one, and the error, which matches
// [syscall.EMFILE], says which limit to raise and how.
//
// The Go runtime raises the soft limit at start by itself (os, since Go 1.19),
// so this finds work only in a process that has lowered it, or a hard limit
// that is too low.
//
// Without proc(5), as in a chroot, there is no count: the soft limit is raised to the
// hard one.
func RaiseNoFile(need int) error { return raiseNoFile(need, "/proc/self/fd") }

func raiseNoFile(need int, dir string) error {
	open, err := countOpen(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	counted := err == nil
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return os.NewSyscallError("getrlimit(RLIMIT_NOFILE)", err)
	}
	want := uint64(open) + uint64(max(need, 0))
	if counted && want <= lim.Cur {
		return nil
	}
	if lim.Cur < lim.Max {
		lim.Cur = lim.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			return os.NewSyscallError("setrlimit(RLIMIT_NOFILE)", err)
		}
	}
	if counted && want > lim.Max {
		return fmt.Errorf("%d descriptors open and %d more needed, but the hard limit RLIMIT_NOFILE is %d (raise it: `ulimit -n %d` in the shell that starts the service, or LimitNOFILE=%d in its unit): %w",
			open, need, lim.Max, want, want, unix.EMFILE)
	}
	return nil
}

// countOpen returns the number of open descriptors of the process.
func countOpen(dir string) (int, error) {
	// Since Linux 6.2 the size of the folder is the count (proc_pid_fd(5)).
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("count open descriptors: %w", os.NewSyscallError("stat "+dir, err))
	}
	if st.Size > 0 {
		return int(st.Size), nil
	}
	return countListed()
}

// countListed is countOpen before Linux 6.2: it lists the folder.
func countListed() (int, error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("count open descriptors: %w", err)
	}
	defer dir.Close()
	open := -1 // dir itself
	for {
		names, err := dir.Readdirnames(1024)
		open += len(names)
		if err == io.EOF {
			return open, nil
		}
		if err != nil {
			return 0, fmt.Errorf("count open descriptors: %w", err)
		}
	}
}
