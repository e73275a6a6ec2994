package handoff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// EnvConversation and EnvTableflip are what New takes out of the environment.
const (
	EnvConversation = "BATON_HANDOFF"
	EnvTableflip    = "TABLEFLIP_HAS_PARENT_7DIU3"
)

// TakeConversation takes the conversation out of the slot that tableflip has passed on
// to this process, and ends it.
func TakeConversation() error {
	for fd := 5; ; fd++ { // behind the standard streams and tableflip's own pipes
		typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if errors.Is(err, unix.EBADF) {
			return errors.New("there is no slot")
		}
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || typ != unix.SOCK_DGRAM || domain != unix.AF_UNIX {
			continue
		}
		// A descriptor for which there is no buffer is closed.
		_, _, flags, _, err := unix.Recvmsg(fd, make([]byte, 1), nil, unix.MSG_DONTWAIT)
		if err != nil || flags&unix.MSG_CTRUNC == 0 {
			return fmt.Errorf("the slot is empty: %w", errors.Join(err, unix.ENOMSG))
		}
		return nil
	}
}
