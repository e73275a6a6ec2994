package flows

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sysfault"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestRefused has the kernel take no steering program, as in a sandbox: Listen says so, and
// what helps, and leaves nothing on the address.
func TestRefused(t *testing.T) {
	testenv.Need(t, "memfd")
	free := dialer(t, "udp", "127.0.0.1:0")
	at := free.LocalAddr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	var ss Sets
	defer ss.Close()
	var err error
	ferr := sysfault.OnThread(func(c sysfault.Call) syscall.Errno {
		if c.Args[1] == unix.SOL_SOCKET && c.Args[2] == unix.SO_ATTACH_REUSEPORT_CBPF {
			return syscall.EPERM
		}
		return 0
	}, func() {
		_, err = ss.Listen(t.Context(), net.ListenConfig{}, Key{"udp", at}, Choice{IDs: quicIDs}, none)
	}, unix.SYS_SETSOCKOPT)
	if errors.Is(ferr, unix.EINVAL) || errors.Is(ferr, unix.ENOSYS) {
		t.Skip(ferr)
	}
	if ferr != nil {
		t.Fatal(ferr)
	}
	if !errors.Is(err, failure.Unsupported) || !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "ListenPacket needs none") {
		t.Errorf("Listen() = %v, want ErrUnsupported, EPERM and a remedy", err)
	}
	if _, err := ss.Listen(t.Context(), net.ListenConfig{}, Key{"udp", at}, Choice{IDs: quicIDs}, none); err != nil {
		t.Errorf("Listen() afterwards = %v", err)
	}
}

// TestOtherUser has another user's socket on the address: the kernel lets no lane beside it.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "root")
	testenv.Need(t, "reuseport_bpf")
	old := dialer(t, "udp", "127.0.0.1:0")
	if err := fdx.Borrow(old, func(fd int) error { return unix.Fchown(fd, 65534, -1) }); err != nil {
		t.Fatal(err)
	}
	var ss Sets
	defer ss.Close()
	_, err := ss.Listen(t.Context(), net.ListenConfig{}, Key{"udp", old.LocalAddr().String()}, Choice{IDs: quicIDs}, func() (syscall.Conn, bool, error) { return old, true, nil })
	if !errors.Is(err, failure.Unsupported) || !strings.Contains(err.Error(), "another user has bound it") {
		t.Errorf("Listen() = %v, want ErrUnsupported that names the user", err)
	}
	if got := send(t, dialer(t, "udp", "127.0.0.1:0"), packetOf(t, nil), &Set{conn: old}); got != 0 {
		t.Error("the socket of the other user gets nothing any more")
	}
}
