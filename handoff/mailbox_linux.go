package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A mailbox is a socket in whose queue a connection's end waits (SCM_RIGHTS,
// unix(7)). tableflip keeps what it passes on for good, in both processes, so that
// nobody would see the end of a connection that it passes on. Of a mailbox it may
// keep what it likes: who empties it has alone what was in it.

// newMailbox returns a mailbox with one end of a new connection in it, and the other
// end.
func newMailbox() (*os.File, *net.UnixConn, error) {
	ours, theirs, err := fdx.SocketPair("conversation")
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close() // a copy is in the mailbox
	box, err := mail(theirs)
	if err != nil {
		_ = ours.Close() // nobody at the other end
		return nil, nil, err
	}
	return box, ours, nil
}

// mail returns a new mailbox with f in it.
func mail(f *os.File) (*os.File, error) {
	fd, err := fdx.Number(f)
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	err = os.NewSyscallError("sendmsg", unix.Sendmsg(fds[0], []byte{0}, unix.UnixRights(fd), nil, 0))
	err = errors.Join(err, fdx.Close(fds[0])) // nothing else will come
	if err != nil {
		_ = fdx.Close(fds[1]) // it is empty
		return nil, err
	}
	return os.NewFile(uintptr(fds[1]), "mailbox"), nil
}

// openMailbox returns what is in a mailbox, or nil if somebody has taken it.
func openMailbox(box *os.File) (*net.UnixConn, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var n, flags int
	err := fdx.Borrow(box, func(fd int) error {
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
		return nil, fmt.Errorf("%w: no descriptor left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=): %w", ErrTransfer, unix.EMFILE)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%w: %d control messages: %w", ErrTransfer, len(messages), errors.Join(unix.EBADMSG, err))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%w: %d descriptors: %w", ErrTransfer, len(fds), errors.Join(unix.EBADMSG, err))
	}
	return fdx.UnixConn(fds[0], "conversation")
}
