package handoff_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestDrainFreebind upgrades a service twice, in this process, on an address that
// no interface has yet, which only the option that the service sets lets it bind.
// What the upgrade binds there itself needs it as well, or the sockets of the
// first process are never drained, and the second upgrade is refused for it.
func TestDrainFreebind(t *testing.T) {
	t.Parallel()
	cfg := handoff.Config{
		Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"), Probation: -1,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
		ListenConfig: &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var serr error
			err := c.Control(func(fd uintptr) {
				serr = os.NewSyscallError("setsockopt(IP_FREEBIND)", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
			})
			if err != nil {
				return err
			}
			return serr
		}},
	}
	tcp, udp := "192.0.2.7:0", "192.0.2.7:0" // of TEST-NET-1, RFC 5737
	var before *handoff.Upgrader
	for range 3 {
		up, ln, pc := openPair(t, &cfg, tcp, udp)
		tcp, udp = ln.Addr().String(), pc.LocalAddr().String()
		if err := up.Ready(); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			<-before.Done()
			if err := before.Close(); err != nil {
				t.Error(err)
			}
		}
		before = up
	}
}

// openPair starts one process's side of a service with a TCP and a UDP socket.
func openPair(t *testing.T, cfg *handoff.Config, tcp, udp string) (*handoff.Upgrader, *handoff.Listener, *handoff.PacketConn) {
	t.Helper()
	up, err := handoff.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Close() })
	ln, err := up.Listen(t.Context(), "tcp4", tcp)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := up.ListenPacket(t.Context(), "udp4", udp)
	if err != nil {
		t.Fatal(err)
	}
	return up, ln, pc
}
