package procs

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Pidfd is a descriptor of a process (pidfd_open(2), Linux 5.3).
type Pidfd struct{ file *os.File }

// OpenPidfd returns a descriptor of the process pid.
func OpenPidfd(pid int) (*Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0) // the kernel makes it close-on-exec
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return NewPidfd(fd)
}

// NewPidfd takes ownership of fd.
func NewPidfd(fd int) (*Pidfd, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // os.NewFile gives the poller no other
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	return &Pidfd{os.NewFile(uintptr(fd), "pidfd")}, nil
}

// pollEvery is how often Wait asks the kernel where it gets no event.
const pollEvery = 50 * time.Millisecond

// Wait returns nil when the process has ended. It returns an error when ctx ends, or p
// is closed, before that, and for no other reason: where the kernel has refused the
// descriptor to the poller (epoll_ctl(2): ENOMEM, ENOSPC), Wait polls. One Wait at a time
// may run.
func (p *Pidfd) Wait(ctx context.Context) error {
	rc, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) }) // a closed one needs none
	defer stop()
	if rc.Read(ended) == nil {
		return nil
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		over := false
		if err := rc.Control(func(fd uintptr) { over = ended(fd) }); err != nil || over {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ended reports whether the process of a pidfd has ended. An error of poll(2), which
// passes (ENOMEM, EINTR), says no.
func ended(fd uintptr) bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0
}

// Kill kills the process.
func (p *Pidfd) Kill() error {
	rc, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var kerr error
	err = rc.Control(func(fd uintptr) {
		kerr = os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0))
	})
	return errors.Join(err, kerr)
}

// SyscallConn gives access to the descriptor, which stays the Pidfd's.
func (p *Pidfd) SyscallConn() (syscall.RawConn, error) { return p.file.SyscallConn() }

// Close closes the descriptor.
func (p *Pidfd) Close() error { return p.file.Close() }
