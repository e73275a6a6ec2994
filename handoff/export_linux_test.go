package handoff

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
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

// HoldListener keeps l's gate from closing until release is called.
// HoldPacketConn is the same for a datagram socket.
func HoldListener(l *Listener) (release func()) { return holdGate(l.inner) }

func HoldPacketConn(c *PacketConn) (release func()) { return holdGate(c.inner) }

func holdGate(inner any) (release func()) {
	gate := reflect.ValueOf(inner).Elem().FieldByName("gate").Elem()
	mu := (*sync.Mutex)(unsafe.Pointer(gate.FieldByName("mu").UnsafeAddr()))
	mu.Lock()
	return mu.Unlock
}

// ToldClosed returns channels that are closed when u's predecessor in mode Drain
// has said that its listeners and its datagram sockets are.
func ToldClosed(u *Upgrader) (listeners, packets <-chan struct{}) {
	return u.lending.told[wire.KindListener], u.lending.told[wire.KindPacket]
}

// Overtake returns when u's successor has read all that u has said to it.
func Overtake(u, successor *Upgrader) {
	u.sendHistory(u.successorLink())
	<-successor.history.settled // nothing else of it has come
}

// Settled waits until u serves no sockets of another process any more.
func Settled(u *Upgrader, patience time.Duration) error {
	return u.awaitVisits(context.Background(), patience)
}
