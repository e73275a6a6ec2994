package inherit

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A descriptor slot is a socket in whose queue a descriptor waits (SCM_RIGHTS,
// unix(7)). tableflip keeps what it passes on for good, in both processes, so that
// the end of a connection that it passes on would never be seen. It may keep a slot:
// the process that empties it has the only copy of what was in it.

// newSlot returns a slot with one end of a new connection in it, and the other end.
func newSlot() (slot *os.File, ours *net.UnixConn, err error) {
	ours, theirs, err := fdx.SocketPair("conversation")
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close() // a copy is in the slot
	if slot, err = slotWith(theirs); err != nil {
		_ = ours.Close() // no process has the other end
		return nil, nil, err
	}
	return slot, ours, nil
}

func slotWith(f *os.File) (*os.File, error) {
	fd, err := fdx.Number(f)
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	err = os.NewSyscallError("sendmsg", unix.Sendmsg(fds[0], []byte{0}, unix.UnixRights(fd), nil, 0))
	err = errors.Join(err, fdx.Close(fds[0])) // nothing else is sent
	if err != nil {
		_ = fdx.Close(fds[1]) // it is empty
		return nil, err
	}
	return os.NewFile(uintptr(fds[1]), "slot"), nil
}

// takeSlot returns the connection in a slot, or nil if a process has taken it.
func takeSlot(slot *os.File) (*net.UnixConn, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var n, flags int
	err := fdx.Borrow(slot, func(fd int) error {
		var err error
		_, n, flags, _, err = unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return os.NewSyscallError("recvmsg", err)
	})
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, nil
	case err != nil:
		return nil, err
	case flags&unix.MSG_CTRUNC != 0: // recvmsg(2)
		return nil, fmt.Errorf("%w: no descriptor left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=): %w", failure.Transfer, unix.EMFILE)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%w: %d control messages: %w", failure.Transfer, len(messages), errors.Join(unix.EBADMSG, err))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%w: %d descriptors: %w", failure.Transfer, len(fds), errors.Join(unix.EBADMSG, err))
	}
	return fdx.UnixConn(fds[0], "conversation")
}
