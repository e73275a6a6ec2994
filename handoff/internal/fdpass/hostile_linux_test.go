package fdpass_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

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
	end := time.Now().Add(time.Minute)
	for left := 1; left > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are not read", left)
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
