package fdpass_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
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
// shows whether anybody still has the write end.
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

// TestHostile sends what a peer should not, and expects an error, no descriptor
// left open, and the stream usable or not as documented.
func TestHostile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		send   func(t *testing.T, raw *net.UnixConn, w *witness)
		want   error
		usable bool
	}{
		{"nothing", func(*testing.T, *net.UnixConn, *witness) {}, io.EOF, false},
		{"half a header", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 0, 1, "")[:5], w.fd)
		}, io.ErrUnexpectedEOF, false},
		{"half a payload", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 10, 2, "12345"), w.times(2)...)
		}, io.ErrUnexpectedEOF, false},
		{"lying length", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 1<<32-1, 1, "x"), w.fd)
		}, fdpass.ErrTooLarge, false},
		{"length just above", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, fdpass.MaxPayload+1, 1, "x"), w.fd)
		}, fdpass.ErrTooLarge, false},
		{"count above the limit", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 0, fdpass.MaxFDs+1, ""), w.times(fdpass.MaxFDs)...)
		}, fdpass.ErrTooLarge, false},
		{"none where promised", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 3, 1, "abc"))
		}, fdpass.ErrTruncated, true},
		{"fewer than promised", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 3, fdpass.MaxFDs, "abc"), w.times(100)...)
		}, fdpass.ErrTruncated, true},
		{"more than promised", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 3, 1, "abc"), w.times(2)...)
		}, fdpass.ErrMalformed, false},
		{"some where none are promised", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 0, 0, ""), w.fd)
		}, fdpass.ErrMalformed, false},
		{"in the payload", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 6, 1, "abc"), w.fd)
			send(t, raw, []byte("def"), w.fd)
		}, fdpass.ErrMalformed, false},
		{"too many in the payload", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 6, 0, "abc"))
			send(t, raw, []byte("def"), w.times(fdpass.MaxFDs)...)
		}, fdpass.ErrMalformed, false},
		{"two portions in the header", func(t *testing.T, raw *net.UnixConn, w *witness) {
			b := frame(1, 0, fdpass.MaxFDs, "")
			send(t, raw, b[:3], w.times(fdpass.MaxFDs)...)
			send(t, raw, b[3:], w.times(fdpass.MaxFDs)...)
		}, fdpass.ErrMalformed, false},
		{"garbage", func(t *testing.T, raw *net.UnixConn, w *witness) {
			send(t, raw, []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), w.fd)
		}, fdpass.ErrTooLarge, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, c := pair(t)
			w := newWitness(t)
			tt.send(t, raw, w)
			if tt.usable {
				send(t, raw, frame(9, 4, 0, "next"))
			}
			if err := raw.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			f, err := c.Recv()
			rest := "" // of the frame
			if tt.usable {
				rest = "abc"
			}
			if !errors.Is(err, tt.want) || f.FDs != nil || string(f.Payload) != rest {
				t.Errorf("Recv = %+v, %v, want %v and the rest of the frame %q", f, err, tt.want, rest)
			}
			if errors.Is(err, unix.EMFILE) {
				t.Errorf("%v matches EMFILE", err)
			}
			if tt.usable {
				if got := recvString(t, c); got != "9 next" {
					t.Errorf("next Recv = %q, want 9 next", got)
				}
			} else if _, again := c.Recv(); !errors.Is(again, tt.want) {
				t.Errorf("next Recv = %v, want %v again", again, tt.want)
			}
			// What the kernel still holds for c goes with the socket.
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			w.wantGone(t)
		})
	}
}

// TestClosedAtOnce shows that the descriptors of a refused frame are closed when
// Recv returns, not only when the connection closes.
func TestClosedAtOnce(t *testing.T) {
	t.Parallel()
	for name, hostile := range map[string]func(raw *net.UnixConn, w *witness){
		"more":      func(raw *net.UnixConn, w *witness) { send(t, raw, frame(1, 0, 1, ""), w.times(3)...) },
		"fewer":     func(raw *net.UnixConn, w *witness) { send(t, raw, frame(1, 0, 9, ""), w.times(3)...) },
		"too large": func(raw *net.UnixConn, w *witness) { send(t, raw, frame(1, 1<<31, 3, ""), w.times(3)...) },
		"payload": func(raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 6, 3, "abc"), w.times(3)...)
			send(t, raw, []byte("def"), w.times(3)...)
		},
		"end": func(raw *net.UnixConn, w *witness) {
			send(t, raw, frame(1, 6, 3, "abc"), w.times(3)...)
			raw.CloseWrite()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, c := pair(t)
			w := newWitness(t)
			hostile(raw, w)
			if f, err := c.Recv(); err == nil {
				t.Errorf("Recv = %+v, want an error", f)
			}
			w.wantGone(t)
		})
	}
}

// drained waits until nothing is left to read from c, which another goroutine
// reads.
func drained(t testing.TB, c *net.UnixConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for left := 1; left > 0; runtime.Gosched() {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		var ioctlErr error
		if err := rc.Control(func(fd uintptr) { left, ioctlErr = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil || ioctlErr != nil {
			t.Fatal(err, ioctlErr)
		}
	}
}

// TestDribble sends frames byte by byte and interrupts Recv after each byte: no
// byte and no descriptor is lost.
func TestDribble(t *testing.T) {
	t.Parallel()
	raw, end, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := fdpass.New(end)
	defer c.Close()
	w := newWitness(t)
	type result struct {
		f   fdpass.Frame
		err error
	}
	results := make(chan result)
	recv := func() {
		go func() { // ends when the test takes its result
			f, err := c.Recv()
			results <- result{f, err}
		}()
	}
	for range 2 {
		b := frame(3, 5, 2, "hello")
		for i := range len(b) - 1 {
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			recv()
			if i == 0 {
				send(t, raw, b[:1], w.times(2)...)
			} else {
				send(t, raw, b[i:i+1])
			}
			drained(t, end)
			if err := c.SetReadDeadline(past); err != nil {
				t.Fatal(err)
			}
			if r := <-results; !errors.Is(r.err, os.ErrDeadlineExceeded) {
				t.Fatalf("Recv after byte %d = %+v, %v", i, r.f, r.err)
			}
			if !c.Buffered() {
				t.Errorf("Buffered = false after byte %d", i)
			}
			if _, err := c.Detach(); err != fdpass.ErrBusy {
				t.Errorf("Detach after byte %d = %v, want ErrBusy", i, err)
			}
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		send(t, raw, b[len(b)-1:])
		f, err := c.Recv()
		if err != nil || f.Type != 3 || string(f.Payload) != "hello" || len(f.FDs) != 2 {
			t.Fatalf("Recv = %+v, %v", f, err)
		}
		if c.Buffered() {
			t.Error("Buffered = true between frames")
		}
		if err := fdx.Close(f.FDs...); err != nil {
			t.Error(err)
		}
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
	if _, err := c.Detach(); err != fdpass.ErrBusy {
		t.Errorf("Detach = %v, want ErrBusy", err)
	}
}

// TestDetach passes a connection on between two frames that are both in its
// buffer already.
func TestDetach(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	w := newWitness(t)
	send(t, raw, slices.Concat(frame(1, 1, 0, "x"), frame(2, 0, 0, "")))
	send(t, raw, frame(3, 1, 1, "z"), w.fd)
	if got := recvString(t, c); got != "1 x" {
		t.Errorf("Recv = %q, want 1 x", got)
	}
	if err := c.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	uc, err := c.Detach()
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Send":             c.Send(1, nil, nil),
		"Recv":             func() error { _, err := c.Recv(); return err }(),
		"Detach":           func() error { _, err := c.Detach(); return err }(),
		"Peer":             func() error { _, err := c.Peer(); return err }(),
		"SetReadDeadline":  c.SetReadDeadline(past),
		"SetWriteDeadline": c.SetWriteDeadline(past),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Detach = %v, want net.ErrClosed", name, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close after Detach = %v", err)
	}
	next := fdpass.New(uc)
	defer next.Close()
	if got := recvString(t, next); got != "2 " {
		t.Errorf("Recv = %q, want type 2", got)
	}
	f, err := next.Recv()
	if err != nil || f.Type != 3 || len(f.FDs) != 1 {
		t.Fatalf("Recv = %+v, %v", f, err)
	}
	if err := fdx.Close(f.FDs...); err != nil {
		t.Error(err)
	}
	w.wantGone(t)
}

func TestDetachWhileReceiving(t *testing.T) {
	t.Parallel()
	raw, end, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := fdpass.New(end)
	defer c.Close()
	done := make(chan error)
	go func() {
		_, err := c.Recv()
		done <- err
	}()
	send(t, raw, frame(1, 1, 0, ""))
	drained(t, end) // Recv is under way
	if _, err := c.Detach(); err != fdpass.ErrBusy {
		t.Errorf("Detach = %v, want ErrBusy", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Recv = %v, want net.ErrClosed", err)
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

func TestSendPeerGone(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	raw.Close()
	if err := c.Send(1, []byte("x"), nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Send = %v, want EPIPE", err)
	}
}

// TestEndlessBytes shows that a stream of garbage costs one bounded frame.
func TestEndlessBytes(t *testing.T) {
	t.Parallel()
	raw, c := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for chunk := bytes.Repeat([]byte{0xff}, 1<<16); ; {
			if _, err := raw.Write(chunk); err != nil {
				return // the reader has closed
			}
		}
	}()
	if _, err := c.Recv(); !errors.Is(err, fdpass.ErrTooLarge) {
		t.Errorf("Recv = %v, want ErrTooLarge", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

// TestMemoryFollowsBytes shows that a length that is only announced takes no
// memory.
func TestMemoryFollowsBytes(t *testing.T) {
	raw, c := pair(t)
	send(t, raw, frame(1, fdpass.MaxPayload, 0, "a few bytes"))
	raw.CloseWrite()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := c.Recv(); err != io.ErrUnexpectedEOF {
		t.Errorf("Recv = %v, want io.ErrUnexpectedEOF", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 128<<10 {
		t.Errorf("%d bytes of memory for a few of payload", n)
	}
}

// TestManyDescriptors sends 10,000 descriptors in frames that are acknowledged
// one by one, as the conversation does.
func TestManyDescriptors(t *testing.T) {
	t.Parallel()
	a, b := conns(t)
	w := newWitness(t)
	const total = 10_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for left := total; left > 0; {
			n := min(left, fdpass.MaxFDs)
			if err := a.Send(1, make([]byte, 80*n), w.times(n)); err != nil {
				t.Errorf("Send: %v", err)
				return
			}
			if f, err := a.Recv(); err != nil || f.Type != 2 {
				t.Errorf("acknowledgement = %+v, %v", f, err)
				return
			}
			left -= n
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	got := 0
	for {
		f, err := b.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got += len(f.FDs)
		// Closed at once: the test does not depend on RLIMIT_NOFILE.
		if err := fdx.Close(f.FDs...); err != nil {
			t.Error(err)
		}
		if err := b.Send(2, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if got != total {
		t.Errorf("%d descriptors arrived, want %d", got, total)
	}
	w.wantGone(t)
}

func TestShortLimit(t *testing.T) {
	t.Parallel()
	runHelper(t, "short-limit")
}

func TestManyInFlight(t *testing.T) {
	t.Parallel()
	runHelper(t, "many-in-flight")
}

// manyInFlight sends without privilege until the kernel refuses, takes what is
// in flight, and goes on.
func manyInFlight() error {
	raw, end, err := socketpair()
	if err != nil {
		return err
	}
	a, b := fdpass.New(raw), fdpass.New(end)
	const limit = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
	}
	wfd, err := fdx.Number(raw)
	if err != nil {
		return err
	}
	fds := slices.Repeat([]int{wfd}, limit/2)
	sent := 0
	for ; err == nil; sent++ {
		if sent > 10 {
			return fmt.Errorf("%d descriptors in flight, limit %d", sent*len(fds), limit)
		}
		err = a.Send(1, []byte("many"), fds)
	}
	sent--
	if !errors.Is(err, syscall.ETOOMANYREFS) {
		return fmt.Errorf("Send = %v, want ETOOMANYREFS", err)
	}
	for range sent {
		f, err := b.Recv()
		if err != nil || string(f.Payload) != "many" || len(f.FDs) != len(fds) {
			return fmt.Errorf("Recv = %+v, %v", f, err)
		}
		if err := fdx.Close(f.FDs...); err != nil {
			return err
		}
	}
	if err := a.Send(2, []byte("again"), fds); err != nil {
		return fmt.Errorf("Send after the peer took all = %w", err)
	}
	if f, err := b.Recv(); err != nil || f.Type != 2 || string(f.Payload) != "again" {
		return fmt.Errorf("Recv = %+v, %v, want the frame sent last", f, err)
	}
	return nil
}

// shortLimit receives 253 descriptors with room for 34 and for none.
func shortLimit() error {
	raw, end, err := socketpair()
	if err != nil {
		return err
	}
	a, b := fdpass.New(raw), fdpass.New(end)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	wfd, err := fdx.Number(w)
	if err != nil {
		return err
	}
	fds := slices.Repeat([]int{wfd}, fdpass.MaxFDs)
	free, err := fdx.DupFD(wfd) // the lowest free number; a few above it may be taken
	if err != nil {
		return err
	}
	if err := fdx.Close(free); err != nil {
		return err
	}
	for _, room := range []int{34, 0, fdpass.MaxFDs - 16} {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + room), Max: 5000}); err != nil {
			return err
		}
		if err := a.Send(1, []byte("many"), fds); err != nil {
			return err
		}
		if err := a.Send(2, []byte("none"), nil); err != nil {
			return err
		}
		f, err := b.Recv()
		if !errors.Is(err, fdpass.ErrTruncated) || !errors.Is(err, unix.EMFILE) || f.FDs != nil {
			return fmt.Errorf("room for %d: Recv = %+v, %v, want ErrTruncated and EMFILE", room, f, err)
		}
		if f, err = b.Recv(); err != nil || f.Type != 2 || string(f.Payload) != "none" {
			return fmt.Errorf("room for %d: next Recv = %+v, %v", room, f, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + fdpass.MaxFDs + 16), Max: 5000}); err != nil {
		return err
	}
	if err := a.Send(3, nil, fds); err != nil {
		return err
	}
	f, err := b.Recv()
	if err != nil || len(f.FDs) != fdpass.MaxFDs {
		return fmt.Errorf("room for all: %d descriptors, %v", len(f.FDs), err)
	}
	if err := errors.Join(fdx.Close(f.FDs...), w.Close()); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("read = %v, want EOF: a descriptor is still open", err)
	}
	return nil
}
