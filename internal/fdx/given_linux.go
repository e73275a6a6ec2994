package fdx

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Given are the descriptors above 2 that this process was started with for it and for what
// it starts, as a lock of flock(1) is: each one's number, device and inode.
type Given []string

// InheritedNow returns the descriptors above 2 that a process inherits which is started
// now: those without close-on-exec. Without proc(5) it returns none.
func InheritedNow() Given {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var given Given
	for _, entry := range dir {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			if id := inheritable(fd); id != "" {
				given = append(given, id)
			}
		}
	}
	return given
}

// inheritable returns what a descriptor without close-on-exec is, or "".
func inheritable(fd int) string {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 || unix.Fstat(fd, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d", fd, st.Dev, st.Ino)
}

// ParseGiven returns what String has returned in another process.
func ParseGiven(text string) Given {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func (g Given) String() string { return strings.Join(g, ",") }

// Numbers returns the descriptors that are inheritable still, in order.
func (g Given) Numbers() []int {
	var fds []int
	for _, id := range g {
		number, _, _ := strings.Cut(id, ":")
		if fd, err := strconv.Atoi(number); err == nil && fd > 2 && inheritable(fd) == id {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return slices.Compact(fds)
}

// maxFD is more than any descriptor.
const maxFD = 1<<31 - 1

// Keep makes all descriptors above 2 close-on-exec, but for those given: what code of
// another package has opened without that flag is inherited no more. Before Linux 5.11 it
// does nothing.
func (g Given) Keep() {
	from := uint(3)
	for _, fd := range g.Numbers() {
		if uint(fd) > from {
			_ = unix.CloseRange(from, uint(fd)-1, unix.CLOSE_RANGE_CLOEXEC) // ENOSYS, EINVAL: see above
		}
		from = uint(fd) + 1
	}
	_ = unix.CloseRange(from, maxFD, unix.CLOSE_RANGE_CLOEXEC)
}

// Alone calls start on a thread that ends with it, and has a table of descriptors of its
// own (CLOSE_RANGE_UNSHARE, close_range(2)), in which all above 2 are close-on-exec: a
// process that start forks inherits nothing that another thread has opened
// without that flag, at whatever moment. start must keep no descriptor that it opens: the
// number means nothing in other threads. Before Linux 5.11, and without proc(5), the table
// is the process's, as it is.
func Alone(start func()) { alone(start, maxTries) }

// maxTries bounds the threads that wait while another one is looked for.
const maxTries = 16

func alone(start func(), tries int) {
	done := make(chan struct{})
	go func() { // ends with start
		defer close(done)
		runtime.LockOSThread()
		children, err := os.ReadFile("/proc/thread-self/children") // proc(5); CONFIG_PROC_CHILDREN
		switch {
		case err != nil || tries == 0:
			runtime.UnlockOSThread()
			start()
			return
		case len(children) > 0 || unix.Gettid() == unix.Getpid():
			// A child that wants a signal at the end of its parent gets it at the end of the
			// thread that has started it (PR_SET_PDEATHSIG(2const)). The first thread does
			// not end. This one waits, so that the next is another.
			alone(start, tries-1)
			runtime.UnlockOSThread()
			return
		}
		if unix.CloseRange(3, maxFD, unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC) != nil {
			runtime.UnlockOSThread()
			start()
			return
		}
		start() // the thread ends with the goroutine
	}()
	<-done
}
