package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Notifier sends notifications.
type Notifier struct {
	addr    *net.UnixAddr
	timeout time.Duration // of a message
}

// New returns a notifier to the socket that NOTIFY_SOCKET names, nil if it is
// empty. Anything but an absolute path and an abstract name ("@…") is an error
// that matches [ErrEnvironment]. A message that finds the socket full for the time
// timeout is an error that matches [os.ErrDeadlineExceeded].
func New(getenv func(string) string, timeout time.Duration) (*Notifier, error) {
	path := getenv(EnvSocket)
	switch {
	case path == "":
		return nil, nil
	case path[0] != '/' && path[0] != '@':
		return nil, fmt.Errorf("%w: %s=%q: neither a path nor an abstract name", ErrEnvironment, EnvSocket, path)
	}
	return &Notifier{&net.UnixAddr{Name: path, Net: "unixgram"}, timeout}, nil
}

// Send sends a message with descriptors, which it borrows.
func (n *Notifier) Send(m Message, fds ...int) error {
	if n == nil {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close() // sent, or not
	if err := c.SetWriteDeadline(time.Now().Add(n.timeout)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if err := sendmsg(c, m.text(), fds); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// sendmsg sends a datagram with descriptors. WriteMsgUnix refuses connected
// datagram sockets (net.ErrWriteToConnected).
func sendmsg(c *net.UnixConn, text string, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	werr := raw.Write(func(fd uintptr) bool {
		for {
			err = unix.Sendmsg(int(fd), []byte(text), rights, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN) // which waits for room
			}
		}
	})
	if werr != nil {
		return werr
	}
	return os.NewSyscallError("sendmsg", err)
}

// Barrier waits until systemd has read everything that was sent before: it
// closes the descriptor that it gets then (sd_notify_barrier(3), systemd 246).
// An error matches ctx's where that has ended first.
func (n *Notifier) Barrier(ctx context.Context) error {
	if n == nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close() // only its end matters
	fd, err := fdx.Number(w)
	if err == nil {
		err = n.Send(Message{"BARRIER=1"}, fd) // alone in its message
	}
	_ = w.Close() // systemd has the only other one
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) }) // a pipe can
	defer stop()
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("notify systemd: barrier: %w", context.Cause(ctx))
	}
	return nil
}

// Monotonic returns the time of the clock that Reloading wants.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // can't be
	}
	return time.Duration(ts.Nano())
}

// PIDFDID returns the inode of a process's pidfd, which names it for good, or 0
// where the kernel has none (pidfs, Linux 6.9).
func PIDFDID(pid int) uint64 {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd) // nothing was written
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PID_FS_MAGIC || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
