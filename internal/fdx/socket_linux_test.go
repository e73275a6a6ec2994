package fdx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

func TestInfo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	for _, tt := range []struct {
		network, address string
		packet           bool
		want             fdx.SocketInfo
		addrLen          int
	}{
		{"tcp4", "127.0.0.1:0", false, fdx.SocketInfo{Domain: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP, Listening: true}, unix.SizeofSockaddrInet4},
		{"udp4", "127.0.0.1:0", true, fdx.SocketInfo{Domain: unix.AF_INET, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP}, unix.SizeofSockaddrInet4},
		{"unix", filepath.Join(dir, "stream"), false, fdx.SocketInfo{Domain: unix.AF_UNIX, Type: unix.SOCK_STREAM, Listening: true}, 2 + len(dir) + len("/stream") + 1},
		{"unixgram", filepath.Join(dir, "dgram"), true, fdx.SocketInfo{Domain: unix.AF_UNIX, Type: unix.SOCK_DGRAM}, 2 + len(dir) + len("/dgram") + 1},
		{"unixpacket", filepath.Join(dir, "seq"), false, fdx.SocketInfo{Domain: unix.AF_UNIX, Type: unix.SOCK_SEQPACKET, Listening: true}, 2 + len(dir) + len("/seq") + 1},
	} {
		t.Run(tt.network, func(t *testing.T) {
			t.Parallel()
			var fd int
			if tt.packet {
				pc, err := plain.ListenPacket(context.Background(), tt.network, tt.address)
				if err != nil {
					t.Fatal(err)
				}
				defer pc.Close()
				fd = number(t, pc)
			} else {
				ln, err := plain.Listen(context.Background(), tt.network, tt.address)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				fd = number(t, ln)
			}
			got, err := fdx.Info(fd)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Sockname) != tt.addrLen {
				t.Errorf("Sockname has %d bytes, want %d: %x", len(got.Sockname), tt.addrLen, got.Sockname)
			}
			if family := *(*uint16)(unsafe.Pointer(&got.Sockname[0])); int(family) != tt.want.Domain {
				t.Errorf("sa_family = %d, want %d", family, tt.want.Domain)
			}
			got.Sockname = nil
			if got.Domain != tt.want.Domain || got.Type != tt.want.Type || got.Protocol != tt.want.Protocol || got.Listening != tt.want.Listening {
				t.Errorf("Info = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func number(t testing.TB, c any) int {
	t.Helper()
	fd, err := fdx.Number(c.(syscall.Conn))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestInfoNotASocket(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd, err := fdx.Number(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fdx.Info(fd); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("Info(pipe) = %v, want ENOTSOCK", err)
	}
	if _, err := fdx.Info(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("Info(-1) = %v, want EBADF", err)
	}
}

func TestInfoIntoAllocates(t *testing.T) {
	fd, err := fdx.Number(listenTCP(t))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := fdx.InfoInto(fd, buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("InfoInto allocates %v times, want 0", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := fdx.Info(fd); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("Info allocates %v times, want at most 1", n)
	}
}

func TestPeerCred(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got, err := fdx.PeerCred(c.(*net.UnixConn))
	if want := (fdx.Cred{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}); err != nil || got != want {
		t.Errorf("PeerCred = %+v, %v, want %+v", got, err, want)
	}
	c.Close()
	if _, err := fdx.PeerCred(c.(*net.UnixConn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("PeerCred(closed) = %v, want net.ErrClosed", err)
	}
}

// TestSenderCred has another process, and then this one, speak over a socketpair:
// what they have said is still to come after the question who it was.
func TestSenderCred(t *testing.T) {
	t.Parallel()
	pair := func() (*net.UnixConn, *os.File) {
		t.Helper()
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(fds[1]), "theirs")
		t.Cleanup(func() { theirs.Close() })
		c, err := fdx.Conn(fds[0], "ours")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ours := c.(*net.UnixConn)
		if err := fdx.ExpectCred(ours); err != nil {
			t.Fatal(err)
		}
		return ours, theirs
	}
	own := fdx.Cred{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}
	buf, oob := make([]byte, 16), make([]byte, 256)

	ours, theirs := pair()
	if got, err := fdx.PeerCred(ours); err != nil || got != own {
		t.Errorf("PeerCred = %+v, %v, want %+v", got, err, own)
	}
	cmd := exec.Command("sh", "-c", "(printf word >&3); wait") // a child of the child speaks
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := fdx.SenderCred(ours)
	if got.PID == cmd.Process.Pid || got.PID <= 1 || got.PID == own.PID || got.UID != own.UID || got.GID != own.GID || err != nil {
		t.Errorf("SenderCred = %+v, %v, want a child of %d's, and %+v", got, err, cmd.Process.Pid, own)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	n, oobn, _, _, err := ours.ReadMsgUnix(buf, oob)
	if string(buf[:max(n, 0)]) != "word" || oobn != 0 || err != nil {
		t.Errorf("read %q with %d bytes of control messages, %v, want what was sent, and none", buf[:max(n, 0)], oobn, err)
	}

	// Descriptors that come with it come once.
	ours, theirs = pair()
	if err := unix.Sendmsg(int(theirs.Fd()), []byte("fd"), unix.UnixRights(0), nil, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := fdx.SenderCred(ours); err != nil || got != own {
		t.Errorf("SenderCred = %+v, %v, want %+v", got, err, own)
	}
	if n, oobn, _, _, err = ours.ReadMsgUnix(buf, oob); err != nil || string(buf[:n]) != "fd" {
		t.Errorf("read %q, %v", buf[:max(n, 0)], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v, want one", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Errorf("descriptors %v, %v, want one", fds, err)
	}
	if err := fdx.Close(fds...); err != nil {
		t.Error(err)
	}

	// It waits no longer than its limit, and not without a process to wait for.
	if err := ours.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := fdx.SenderCred(ours); !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.EAGAIN) {
		t.Errorf("SenderCred = %v, want os.ErrDeadlineExceeded alone", err)
	}
	if err := ours.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := fdx.SenderCred(ours); !errors.Is(err, io.EOF) {
		t.Errorf("SenderCred = %v, want io.EOF", err)
	}
	ours.Close()
	if _, err := fdx.SenderCred(ours); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SenderCred = %v, want net.ErrClosed", err)
	}
}

func BenchmarkInfo(b *testing.B) {
	fd, err := fdx.Number(listenTCP(b))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fdx.InfoInto(fd, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// TestInfoInfers compares Info with what the kernel says when asked for each
// thing, for every kind of socket that this kernel and this user can open.
func TestInfoInfers(t *testing.T) {
	t.Parallel()
	opened := 0
	for _, domain := range []int{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_VSOCK, unix.AF_SMC, unix.AF_TIPC, unix.AF_KEY, unix.AF_XDP} {
		for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_RAW, unix.SOCK_DCCP} {
			for _, proto := range []int{
				0, 1, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6, unix.IPPROTO_UDPLITE,
				unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_MPTCP, unix.IPPROTO_RAW,
			} {
				fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
				if err != nil {
					continue // no such socket
				}
				opened++
				for _, listen := range []bool{false, true} {
					if listen && unix.Listen(fd, 1) != nil {
						continue
					}
					got, err := fdx.Info(fd)
					if errors.Is(err, unix.EOPNOTSUPP) {
						continue // a kind without addresses
					}
					if err != nil {
						t.Errorf("Info(socket(%d, %d, %d)): %v", domain, typ, proto, err)
						continue
					}
					option := func(opt int) int {
						v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
						if err != nil {
							t.Error(err)
						}
						return v
					}
					want := fdx.SocketInfo{
						Domain: option(unix.SO_DOMAIN), Type: option(unix.SO_TYPE), Protocol: option(unix.SO_PROTOCOL),
						Listening: option(unix.SO_ACCEPTCONN) != 0, Sockname: got.Sockname,
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("Info(socket(%d, %d, %d)), listening %v (-want +got):\n%s", domain, typ, proto, listen, diff)
					}
				}
				if err := fdx.Close(fd); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if opened < 5 {
		t.Errorf("only %d kinds of socket could be opened", opened)
	}
	t.Logf("%d kinds of socket", opened)
}
