package fdpass

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// rightsSpace is room for the most descriptors that the kernel delivers at once,
// with some to spare for control messages that a socket option of the caller's
// may add (SO_PASSCRED, SO_PASSSEC).
const rightsSpace = 16 + 4*MaxFDs + 4 + 512

func supported() error { return nil }

// rights returns the control message that carries fds, nil if there are none.
func rights(fds []int) []byte {
	if len(fds) == 0 {
		return nil
	}
	return unix.UnixRights(fds...)
}

// parseRights returns the descriptors in control messages that recvmsg(2) gave
// together with flags, and whether the kernel could not deliver all of them.
func parseRights(oob []byte, flags int) (fds []int, truncated bool, err error) {
	truncated = flags&unix.MSG_CTRUNC != 0
	if len(oob) == 0 {
		return nil, truncated, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, truncated, os.NewSyscallError("recvmsg: control message", err)
	}
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			_ = fdx.Close(fds...) // the parse error says more
			return nil, truncated, os.NewSyscallError("recvmsg: control message", err)
		}
		if fds == nil {
			fds = got
		} else {
			fds = append(fds, got...)
		}
	}
	return fds, truncated, nil
}

// truncatedError says why descriptors are missing. It is called while those that did
// arrive are still open: if there is no room for one more, RLIMIT_NOFILE is the cause (net/core/scm.c, scm_detach_fds, stops at the first that fails; a
// security module can be the cause too).
func truncatedError(uc *net.UnixConn) error {
	fd, err := fdx.Dup(uc)
	if err == nil {
		_ = fdx.Close(fd)
		return fmt.Errorf("%w (the kernel refused the others)", ErrTruncated)
	}
	if !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	var lim unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) // zeros in the text at worst
	return fmt.Errorf("%w: RLIMIT_NOFILE of this process is too low, soft %d, hard %d (raise it with `ulimit -n` in the shell that starts the service, or LimitNOFILE= in its unit): %w",
		ErrTruncated, lim.Cur, lim.Max, unix.EMFILE)
}

// sendError adds to an error of sendmsg(2) what can be done about it.
func sendError(err error, fds int) error {
	switch {
	case errors.Is(err, unix.ETOOMANYREFS):
		return fmt.Errorf("send %d descriptors: more are in flight than RLIMIT_NOFILE of this process allows (wait until the peer has taken some, or raise the limit): %w", fds, err)
	case fds > 0:
		return fmt.Errorf("send frame with %d descriptors: %w", fds, err)
	}
	return fmt.Errorf("send frame: %w", err)
}
