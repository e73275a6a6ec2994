package session_test

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// socketpair returns two connected stream sockets.
func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socketpair", err))
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		c, err := fdx.Conn(fd, "end")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// empty reports whether there is nothing to read from c.
func empty(t testing.TB, c *net.UnixConn) bool {
	t.Helper()
	fd, err := fdx.Number(c)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		t.Fatal(os.NewSyscallError("ioctl(FIONREAD)", err))
	}
	return n == 0
}

// wirePair returns the two ends of a conversation over a socketpair.
func wirePair(t testing.TB, sendTimeout time.Duration) (a, b *session.WireLink) {
	t.Helper()
	ca, cb := socketpair(t)
	return session.NewWireLink(fdpass.New(ca), sendTimeout), session.NewWireLink(fdpass.New(cb), sendTimeout)
}

// witness is an open file of which it can be told whether any descriptor is
// left: one end of a connection, of which the other sees the end.
type witness struct {
	t    testing.TB
	seen *net.UnixConn
	c    *net.UnixConn
	fds  []int
}

func newWitness(t testing.TB) *witness {
	t.Helper()
	w := &witness{t: t}
	w.seen, w.c = socketpair(t)
	return w
}

// dup returns a descriptor that gone closes.
func (w *witness) dup() int {
	w.t.Helper()
	fd, err := fdx.Dup(w.c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fds = append(w.fds, fd)
	return fd
}

// items returns a manifest of n descriptors.
func (w *witness) items(n int) []session.Item {
	items := noFDs(n)
	for i := range items {
		items[i].FD, items[i].Inherited = w.dup(), false
	}
	return items
}

// gone closes all descriptors of the test's own and fails the test if others
// are left.
func (w *witness) gone() {
	w.t.Helper()
	closeAll(w.t, w.fds)
	w.fds = nil
	w.c.Close()
	if err := w.seen.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.seen.Read(make([]byte, 1)); err != io.EOF {
		w.t.Errorf("Read() = %v, want EOF: descriptors are left", err)
	}
}

// take plays a successor that receives batches of sockets and acknowledges them.
func (s script) take(batches int) {
	s.t.Helper()
	for range batches {
		m := receive[*wire.Sockets](s)
		s.say(&wire.Ack{Seq: m.Seq, Taken: uint32(len(m.Entries))})
	}
}

// give plays a predecessor that sends items in batches, each acknowledged.
func (s script) give(items []session.Item, first, count int) {
	s.t.Helper()
	const batch = 253
	for range count {
		part := items[first:min(first+batch, len(items))]
		m := &wire.Sockets{Seq: uint32(first), First: uint32(first)}
		var fds []int
		for _, it := range part {
			m.Entries = append(m.Entries, it.Socket)
			fds = append(fds, it.FD)
		}
		if err := s.link.Send(m, fds); err != nil {
			s.t.Errorf("Send(Sockets) = %v", err)
		}
		if a := receive[*wire.Ack](s); a.Seq != m.Seq || int(a.Taken) != len(part) {
			s.t.Errorf("Ack = %+v, want all of %d", a, m.Seq)
		}
		first += batch
	}
}
