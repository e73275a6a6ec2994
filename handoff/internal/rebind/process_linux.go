package rebind

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A process is another one, known by its pidfd.
type process struct{ f *os.File }

// newProcess owns pidfd.
func newProcess(pidfd int) *process {
	_ = unix.SetNonblock(pidfd, true) // without it the poller would not take it, and await fails
	return &process{os.NewFile(uintptr(pidfd), "process")}
}

// await waits until the process has ended, and reports whether it has: stop ends
// the wait as well.
func (p *process) await() bool {
	rc, err := p.f.SyscallConn()
	return err == nil && rc.Read(func(fd uintptr) bool { return hasEnded(int(fd)) }) == nil
}

func (p *process) stop() { _ = p.f.SetReadDeadline(time.Unix(1, 0)) } // a closed one has ended

func (p *process) close() { _ = p.f.Close() } // a copy

// hasEnded reports whether the process of a pidfd has ended, and has closed what it
// had open.
func hasEnded(pidfd int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// dup returns a duplicate of the pidfd.
func (p *process) dup() (int, error) { return fdx.Dup(p.f) }

// OpenProcess returns the pidfd of a process that lives, or nothing: pid may be 0,
// for a process of another PID namespace.
func OpenProcess(pid int) []int {
	if pid <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	return []int{fd}
}
