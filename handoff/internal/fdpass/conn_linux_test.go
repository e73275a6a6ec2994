package fdpass_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

var past = time.Unix(1, 0)

// frame is a frame as the package documentation describes it, written down a
// second time.
func frame(typ uint16, size uint32, fds uint16, payload string) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, fds)
	return append(b, payload...)
}

// witness is a pipe whose write end goes through a connection. Its read end
// shows whether a process still has the write end.
type witness struct {
	r, w *os.File
	fd   int // number of w
}

func newWitness(t testing.TB) *witness {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	fd, err := fdx.Number(w)
	if err != nil {
		t.Fatal(err)
	}
	return &witness{r: r, w: w, fd: fd}
}

// times returns the write end's number n times.
func (w *witness) times(n int) []int { return slices.Repeat([]int{w.fd}, n) }

// wantGone closes the write end and fails the test if there is another copy.
func (w *witness) wantGone(t testing.TB) {
	t.Helper()
	w.w.Close()
	if err := w.r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read from the witness = %v, want EOF: a descriptor is still open", err)
	}
}

func send(t testing.TB, raw *net.UnixConn, b []byte, fds ...int) {
	t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := raw.WriteMsgUnix(b, oob, nil)
	if err != nil || n != len(b) {
		t.Fatalf("sent %d of %d bytes: %v", n, len(b), err)
	}
}

// recvString receives a frame without descriptors.
func recvString(t testing.TB, c *fdpass.Conn) string {
	t.Helper()
	f, err := c.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(f.FDs) > 0 {
		t.Errorf("%d descriptors, want none", len(f.FDs))
	}
	return fmt.Sprintf("%d %s", f.Type, f.Payload)
}

func TestSendRecv(t *testing.T) {
	t.Parallel()
	a, b := conns(t)
	for _, n := range []int{0, 1, 2, fdpass.MaxFDs} {
		w := newWitness(t)
		if err := a.Send(7, []byte("payload"), w.times(n)); err != nil {
			t.Fatal(err)
		}
		f, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type != 7 || string(f.Payload) != "payload" || len(f.FDs) != n {
			t.Errorf("Recv = type %d, %q, %d descriptors; want 7, payload, %d", f.Type, f.Payload, len(f.FDs), n)
		}
		for _, fd := range f.FDs {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags of a received descriptor = %#x, %v, want FD_CLOEXEC", flags, err)
			}
		}
		if err := fdx.Close(f.FDs...); err != nil {
			t.Error(err)
		}
		w.wantGone(t)
	}
}

func TestFrameOnTheWire(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	if err := c.Send(0x0102, []byte("abc"), nil); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 11)
	if _, err := io.ReadFull(raw, got); err != nil {
		t.Fatal(err)
	}
	if want := frame(0x0102, 3, 0, "abc"); !bytes.Equal(got, want) {
		t.Errorf("Send wrote %x, want %x", got, want)
	}
}

func TestPayloadSizes(t *testing.T) {
	t.Parallel()
	a, b := conns(t)
	w := newWitness(t)
	for _, size := range []int{0, 1, 64<<10 - 9, 64<<10 - 8, 64<<10 - 7, 64 << 10, 64<<10 + 1, 300 << 10, fdpass.MaxPayload, 3} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i * 7 >> 3)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Send(1, payload, []int{w.fd}); err != nil {
				t.Errorf("Send of %d bytes: %v", size, err)
			}
		})
		f, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Payload, payload) || len(f.FDs) != 1 {
			t.Errorf("Recv of %d bytes: %d arrived with %d descriptors", size, len(f.Payload), len(f.FDs))
		}
		if err := fdx.Close(f.FDs...); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
	w.wantGone(t)
}

func TestSendConcurrently(t *testing.T) {
	t.Parallel()
	a, b := conns(t)
	const senders, each = 8, 50
	w := newWitness(t)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			payload := bytes.Repeat([]byte{byte(i)}, 1000*i)
			for range each {
				if err := a.Send(uint16(i), payload, w.times(i)); err != nil {
					t.Errorf("Send: %v", err)
					return
				}
			}
		})
	}
	count := make(map[uint16]int)
	for range senders * each {
		f, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		i := int(f.Type)
		if len(f.FDs) != i || !bytes.Equal(f.Payload, bytes.Repeat([]byte{byte(i)}, 1000*i)) {
			t.Errorf("frame of sender %d is mixed up: %d bytes, %d descriptors", i, len(f.Payload), len(f.FDs))
		}
		count[f.Type]++
		if err := fdx.Close(f.FDs...); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	for i := range senders {
		if count[uint16(i)] != each {
			t.Errorf("%d frames of sender %d, want %d", count[uint16(i)], i, each)
		}
	}
	w.wantGone(t)
}

func TestSendTooLarge(t *testing.T) {
	t.Parallel()
	a, b := conns(t)
	w := newWitness(t)
	if err := a.Send(1, nil, w.times(fdpass.MaxFDs+1)); !errors.Is(err, fdpass.ErrTooLarge) {
		t.Errorf("Send of 254 descriptors = %v, want ErrTooLarge", err)
	}
	if err := a.Send(1, make([]byte, fdpass.MaxPayload+1), nil); !errors.Is(err, fdpass.ErrTooLarge) {
		t.Errorf("Send of 1 MiB and a byte = %v, want ErrTooLarge", err)
	}
	if err := a.Send(1, nil, []int{-1}); !errors.Is(err, unix.EBADF) {
		t.Errorf("Send of descriptor -1 = %v, want EBADF", err)
	}
	if err := a.Send(2, []byte("ok"), nil); err != nil {
		t.Fatal(err)
	}
	if got := recvString(t, b); got != "2 ok" {
		t.Errorf("Recv = %q, want 2 ok: a refused frame left something behind", got)
	}
	w.wantGone(t)
}

// TestDeadlineBetweenFrames shows that a deadline leaves the stream as it was.
func TestDeadlineBetweenFrames(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	if err := c.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	send(t, raw, frame(1, 1, 0, "x"))
	if _, err := c.Recv(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Recv past the deadline = %v", err)
	}
	if c.Buffered() {
		t.Error("Buffered = true")
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := recvString(t, c); got != "1 x" {
		t.Errorf("Recv = %q, want 1 x", got)
	}
	if err := c.SetWriteDeadline(past); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(1, []byte("late"), nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send past the deadline = %v", err)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(1, []byte("again"), nil); err != nil {
		t.Errorf("Send after a deadline between frames = %v", err)
	}
}

// TestSendCutOff stops a Send inside a frame: no other frame may follow.
func TestSendCutOff(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	done := make(chan error)
	go func() { done <- c.Send(1, make([]byte, fdpass.MaxPayload), nil) }()
	if _, err := io.ReadFull(raw, make([]byte, 8)); err != nil { // the frame has begun
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(past); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Send = %v", err)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(2, nil, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("next Send = %v, want the same error", err)
	}
	if _, err := c.Dup(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Dup = %v, want the same error", err)
	}
}

// TestDup passes a connection on, after the Send that is under way, and not one on which
// a frame is half read.
func TestDup(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	sent, passed := make(chan error), make(chan int)
	go func() { sent <- c.Send(1, make([]byte, fdpass.MaxPayload), nil) }()
	if _, err := io.ReadFull(raw, make([]byte, 8)); err != nil { // the frame has begun
		t.Fatal(err)
	}
	go func() {
		fd, err := c.Dup()
		if err != nil {
			t.Error(err)
		}
		passed <- fd
	}()
	if n, err := io.CopyN(io.Discard, raw, fdpass.MaxPayload); err != nil {
		t.Fatalf("%d bytes of the frame, %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("Send beside Dup = %v", err)
	}
	uc, err := fdx.UnixConn(<-passed, "next")
	if err != nil {
		t.Fatal(err)
	}
	next := fdpass.New(uc)
	defer next.Close()
	if err := c.Send(1, nil, nil); err == nil {
		t.Error("Send after Dup: no error")
	}
	if _, err := c.Recv(); err == nil {
		t.Error("Recv after Dup: no error")
	}
	send(t, raw, frame(2, 3, 0, "hal"))
	if f, err := next.Recv(); err != nil || string(f.Payload) != "hal" {
		t.Errorf("Recv of the duplicate = %+v, %v", f, err)
	}
	send(t, raw, frame(2, 3, 0, "")[:4])
	for !next.Buffered() {
		_ = next.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = next.Recv()
	}
	if _, err := next.Dup(); !errors.Is(err, fdpass.ErrMalformed) {
		t.Errorf("Dup within a frame = %v, want ErrMalformed", err)
	}
}

// TestCloseMidFrame closes a connection on which half a frame has arrived.
func TestCloseMidFrame(t *testing.T) {
	t.Parallel()
	raw, end, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := fdpass.New(end)
	defer c.Close()
	w := newWitness(t)
	done := make(chan error)
	go func() {
		_, err := c.Recv()
		done <- err
	}()
	send(t, raw, frame(1, 100, 2, "half"), w.times(2)...)
	drained(t, end)
	if err := c.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Recv = %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	w.wantGone(t)
	if err := c.Send(1, nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close = %v, want net.ErrClosed", err)
	}
	if _, err := c.Recv(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Recv after Close = %v, want net.ErrClosed", err)
	}
}

func TestPeer(t *testing.T) {
	t.Parallel()
	_, c := pair(t)
	got, err := c.Peer()
	if want := (fdx.Cred{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}); err != nil || got != want {
		t.Errorf("Peer = %+v, %v, want %+v", got, err, want)
	}
}

// Not parallel: a child that another test starts has the other end, too, until its execve(2).
func TestSendPeerGone(t *testing.T) {
	raw, c := pair(t)
	raw.Close()
	if err := c.Send(1, []byte("x"), nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Send = %v, want EPIPE", err)
	}
}
