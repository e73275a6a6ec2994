package session_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// socket opens a socket of its own and returns its manifest entry.
func socket(t testing.TB, domain, typ, protocol int, addr unix.Sockaddr, listen bool) session.Item {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Skipf("socket(%d, %d, %d): %v", domain, typ, protocol, err)
	}
	t.Cleanup(func() { closeAll(t, []int{fd}) })
	if addr != nil {
		if err := unix.Bind(fd, addr); err != nil {
			t.Fatal(os.NewSyscallError("bind", err))
		}
	}
	if listen {
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(os.NewSyscallError("listen", err))
		}
	}
	return entry(t, fd)
}

// loopback returns an address that no other test uses: bind writes into it.
func loopback() unix.Sockaddr { return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}} }

func tcpListener(t testing.TB) session.Item {
	t.Helper()
	return socket(t, unix.AF_INET, unix.SOCK_STREAM, 0, loopback(), true)
}

// entry describes fd truly.
func entry(t testing.TB, fd int) session.Item {
	t.Helper()
	i, err := fdx.Info(fd)
	if err != nil {
		t.Fatal(err)
	}
	return session.Item{FD: fd, Socket: wire.Socket{
		Kind: wire.KindListener, Network: "test", Domain: int32(i.Domain), SockType: int32(i.Type),
		Protocol: int32(i.Protocol), Listening: i.Listening, Sockname: i.Sockname,
	}}
}

func blob(t testing.TB, name string, size int64) session.Blob {
	t.Helper()
	f, err := fdx.NewBlob(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil { // a hole: no memory
		t.Fatal(err)
	}
	if size > 4 {
		if _, err := f.WriteAt([]byte("tail"), size-4); err != nil {
			t.Fatal(err)
		}
	}
	if err := fdx.Seal(f); err != nil {
		t.Fatal(err)
	}
	return session.Blob{Name: name, Size: uint64(size), File: f}
}

// handOver runs both sides over a socketpair and returns when the transfer is
// done.
func handOver(t testing.TB, o *oldSide, n *newSide) {
	t.Helper()
	a, b := wirePair(t, 30*time.Second)
	o.greet(a)
	if err := n.join(b); err != nil {
		t.Fatal(err)
	}
	n.start()
}

func TestTransfer(t *testing.T) {
	for _, count := range []int{0, 1, 253, 254, 10_000} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			if err := fdx.RaiseNoFile(count + 1000); err != nil {
				t.Skip(err)
			}
			kinds := []session.Item{tcpListener(t), tcpListener(t), socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0, loopback(), false)}
			o, n := newOldSide(t, session.Timeouts{Hang: 30 * time.Second}), newNewSide(t, 30*time.Second)
			for i := range count {
				o.items = append(o.items, kinds[i%len(kinds)])
			}
			n.joiner.Check = session.Verify // getsockname tells the order
			n.joiner.Expect = fdx.RaiseNoFile
			handOver(t, o, n)
			if len(n.got.Sockets) != count {
				t.Errorf("%d sockets, want %d", len(n.got.Sockets), count)
			}
			n.ready()
			n.wantOwner(false)
			res, _ := o.wantCommitted()
			leave(res)
			for _, it := range n.got.Sockets {
				if flags, err := unix.FcntlInt(uintptr(it.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Fatalf("descriptor %d: flags %#x, %v, want close-on-exec", it.FD, flags, err)
				}
			}
			n.got.Close()
		})
	}
}

// TestChecksOverlap checks descriptors while others are on their way, and tells
// of the first in the manifest that is wrong, whichever was found first. No
// check looks at a descriptor that is closed.
func TestChecksOverlap(t *testing.T) {
	t.Parallel()
	a, b := wirePair(t, 30*time.Second)
	w := newWitness(t)
	o, n := newOldSide(t, session.Timeouts{Hang: 30 * time.Second}), newNewSide(t, 30*time.Second)
	o.items = w.items(3 * 253)
	for i := range o.items {
		o.items[i].Socket.Shard = uint32(i)
	}
	last := make(chan struct{})
	n.joiner.Check = func(e wire.Socket, fd int) error {
		switch e.Shard {
		case 5: // of the first batch, waits for the last
			select {
			case <-last:
			case <-time.After(20 * time.Second):
				t.Error("the last batch was not checked while the first one was")
			}
		case 2*253 - 1:
			close(last)
		case 253 + 7:
		default:
			return nil
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			t.Errorf("descriptor of socket %d: %v", e.Shard, err)
		}
		return fmt.Errorf("%w: this is %d", session.ErrMismatch, e.Shard)
	}
	o.greet(a)
	var e *session.Error
	if err := n.join(b); !errors.As(err, &e) || e.Reason != failure.Transfer || !strings.Contains(err.Error(), "socket 5 ") || !strings.Contains(err.Error(), "this is 5") {
		t.Errorf("Join() = %v, want a word of socket 5", err)
	}
	o.wantFailed(failure.Aborted)
	w.gone()
}

func TestTransferStates(t *testing.T) {
	t.Parallel()
	for _, sizes := range [][]int64{{0}, {1 << 30, 5, 0}, make([]int64, 300)} {
		t.Run(fmt.Sprint(len(sizes)), func(t *testing.T) {
			t.Parallel()
			o, n := newOldSide(t, session.Timeouts{Hang: 30 * time.Second}), newNewSide(t, 30*time.Second)
			o.items = []session.Item{tcpListener(t)}
			o.Welcome.States = uint32(len(sizes))
			var blobs []session.Blob
			o.States = func(context.Context) ([]session.Blob, error) {
				for i, size := range sizes {
					blobs = append(blobs, blob(t, fmt.Sprint("state ", i), size))
				}
				return blobs, nil
			}
			w := newWitness(t)
			o.Stderr = func() []int { return []int{w.dup(), w.dup(), w.dup()} }
			handOver(t, o, n)
			if len(n.got.States) != len(sizes) || len(n.got.Stderr) != 3 {
				t.Fatalf("%d states, %d descriptors of standard error", len(n.got.States), len(n.got.Stderr))
			}
			for i, b := range n.got.States {
				if b.Name != fmt.Sprint("state ", i) || b.Size != uint64(sizes[i]) {
					t.Errorf("state %d = %q of %d bytes", i, b.Name, b.Size)
				}
				if sizes[i] > 4 {
					tail := make([]byte, 4)
					if _, err := b.File.ReadAt(tail, sizes[i]-4); err != nil || string(tail) != "tail" {
						t.Errorf("state %d ends with %q, %v", i, tail, err)
					}
				}
			}
			n.ready()
			n.wantOwner(false)
			res, _ := o.wantCommitted()
			leave(res)
			for _, b := range blobs {
				if err := b.File.Close(); !errors.Is(err, os.ErrClosed) {
					t.Errorf("the predecessor kept state %s: %v", b.Name, err)
				}
			}
			n.got.Close()
			w.gone()
		})
	}
}

// TestVerify holds each property of a socket against a manifest that lies about
// it, by way of a whole conversation: the predecessor serves on.
func TestVerify(t *testing.T) {
	t.Parallel()
	true4 := tcpListener(t)
	true6 := true4
	true6.Socket.Domain = unix.AF_INET6
	bound := socket(t, unix.AF_INET, unix.SOCK_STREAM, 0, loopback(), false)
	datagram := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0, loopback(), false)
	other := tcpListener(t)
	pipe := func() int {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeAll(t, p[:]) })
		return p[0]
	}()
	lie := func(fd int, change func(e *wire.Socket)) session.Item {
		e := true4.Socket
		change(&e)
		return session.Item{Socket: e, FD: fd}
	}
	tests := []struct {
		name, text string
		item       session.Item
	}{
		{"domain", "SO_DOMAIN", true6},
		{"type", "SO_TYPE", lie(datagram.FD, func(*wire.Socket) {})},
		{"protocol", "SO_PROTOCOL", lie(true4.FD, func(e *wire.Socket) { e.Protocol = unix.IPPROTO_SCTP })},
		{"not listening", "SO_ACCEPTCONN", lie(bound.FD, func(e *wire.Socket) { e.Sockname = bound.Socket.Sockname })},
		{"listening", "SO_ACCEPTCONN", lie(true4.FD, func(e *wire.Socket) { e.Listening = false })},
		{"name", "bound to", lie(other.FD, func(*wire.Socket) {})},
		{"name shorter", "bound to", lie(true4.FD, func(e *wire.Socket) { e.Sockname = e.Sockname[:4] })},
		{"no socket", "socket", lie(pipe, func(*wire.Socket) {})},
		{"file that is a socket", "SO_TYPE", lie(datagram.FD, func(e *wire.Socket) { e.Kind = wire.KindFile })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := session.Verify(tt.item.Socket, tt.item.FD); !errors.Is(err, session.ErrMismatch) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Verify() = %v, want %s", err, tt.text)
			}
			a, b := wirePair(t, 10*time.Second)
			o, n := newOldSide(t, session.Timeouts{Hang: 10 * time.Second}), newNewSide(t, 10*time.Second)
			w := newWitness(t)
			o.items = append(w.items(300), tt.item)
			n.joiner.Check = func(e wire.Socket, fd int) error {
				if e.Network == "tcp" { // the witness
					return nil
				}
				return session.Verify(e, fd)
			}
			o.greet(a)
			err := n.join(b)
			var e *session.Error
			if !errors.As(err, &e) || e.Reason != failure.Transfer || !errors.Is(err, session.ErrMismatch) {
				t.Errorf("Join() = %v, want a mismatch", err)
			}
			if res, _ := o.wantFailed(failure.Aborted); !strings.Contains(res.Err.Error(), tt.text) {
				t.Errorf("Run() = %v, want the successor's words", res.Err)
			}
			wantCalls(t, &o.journal, "")
			w.gone()
		})
	}
	for _, it := range []session.Item{true4, bound, datagram, other, {FD: pipe, Socket: wire.Socket{Kind: wire.KindFile}}} {
		if err := session.Verify(it.Socket, it.FD); err != nil {
			t.Errorf("Verify(%+v) = %v", it.Socket, err)
		}
	}
}

// TestManifestTooLarge has the predecessor's own manifest exceed a limit.
func TestManifestTooLarge(t *testing.T) {
	t.Parallel()
	o, n := newOldSide(t, session.Timeouts{Hang: 10 * time.Second}), newNewSide(t, 10*time.Second)
	n.joiner.Hello.Via = wire.ViaInherit
	o.items = noFDs(1)
	o.items[0].Socket.Name = strings.Repeat("n", wire.MaxName+1)
	a, b := wirePair(t, 10*time.Second)
	o.greet(a)
	var e *session.Error
	if err := n.join(b); !errors.As(err, &e) || e.Reason != failure.RolledBack {
		t.Errorf("Join() = %v, want a rollback", err)
	}
	if res, _ := o.wantFailed(failure.Transfer); !errors.Is(res.Err, wire.ErrTooLarge) {
		t.Errorf("Run() = %v, want ErrTooLarge", res.Err)
	}
	wantCalls(t, &o.journal, "")
}

// fullLink refuses descriptors while others are in flight.
type fullLink struct {
	*memLink
	refuse func(m *wire.Sockets) bool
}

func (l fullLink) Send(m wire.Message, fds []int) error {
	if m, ok := m.(*wire.Sockets); ok && l.refuse(m) {
		return fmt.Errorf("send: %w", os.NewSyscallError("sendmsg", syscall.ETOOMANYREFS))
	}
	return l.memLink.Send(m, fds)
}

// TestTooManyInFlight has the kernel refuse a batch until the one before is
// taken (unix(7), ETOOMANYREFS).
func TestTooManyInFlight(t *testing.T) {
	t.Run("a while", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Hang: hang})
			o.items = noFDs(3 * 253)
			refused := map[uint32]bool{1: true}
			o.start(fullLink{a, func(m *wire.Sockets) bool {
				first := !refused[m.Seq]
				refused[m.Seq] = true
				return first
			}})
			s := script{t, b}
			receive[*wire.Welcome](s)
			s.take(3)
			s.say(&wire.Verified{}, &wire.Ready{})
			s.confirmAfterPause()
			res, _ := o.wantCommitted()
			leave(res)
		})
	})
	t.Run("for good", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Hang: hang})
			o.items = noFDs(1)
			o.start(fullLink{a, func(*wire.Sockets) bool { return true }})
			s := script{t, b}
			receive[*wire.Welcome](s)
			receive[*wire.Rollback](s)
			s.say(&wire.RolledBack{})
			if res, _ := o.wantFailed(failure.Transfer); !errors.Is(res.Err, syscall.ETOOMANYREFS) {
				t.Errorf("Run() = %v, want ETOOMANYREFS", res.Err)
			}
			wantCalls(t, &o.journal, "")
		})
	})
}
