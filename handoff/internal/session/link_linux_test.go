package session_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// TestInterrupt interrupts Recv in the middle of a message: that one is read to
// its end, and the next one stays for the next reader.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{0, 10 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			ca, cb := socketpair(t)
			conn := fdpass.New(ca)
			link := session.NewWireLink(conn, timeout)
			payload := wire.Append(nil, &wire.Ping{Seq: 300})
			b := frame(uint32(len(payload)), wire.TypePing, 0, payload)
			if _, err := cb.Write(b[:4]); err != nil {
				t.Fatal(err)
			}
			type result struct {
				m   wire.Message
				err error
			}
			got := make(chan result)
			go func() {
				m, _, err := link.Recv()
				got <- result{m, err}
			}()
			// Until Recv is within the frame, an interrupt ends it at once: wait for
			// the kernel's queue to be empty.
			for end := time.Now().Add(time.Minute); !empty(t, ca); runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatal("Recv has not read the header of a frame")
				}
			}
			link.Interrupt()
			if _, err := cb.Write(b[4:]); err != nil {
				t.Fatal(err)
			}
			if _, err := cb.Write(b); err != nil {
				t.Fatal(err)
			}
			if r := <-got; r.err != nil || r.m.(*wire.Ping).Seq != 300 {
				t.Fatalf("Recv() = %+v, want the message under way", r)
			}
			if m, _, err := link.Recv(); !errors.Is(err, session.ErrInterrupted) {
				t.Errorf("Recv() = %T, %v, want ErrInterrupted", m, err)
			}
			fd, err := conn.Dup()
			if err != nil {
				t.Fatal(err)
			}
			uc, err := fdx.UnixConn(fd, "next")
			if err != nil {
				t.Fatal(err)
			}
			next := session.NewWireLink(fdpass.New(uc), timeout)
			if m, _, err := next.Recv(); err != nil || m.(*wire.Ping).Seq != 300 {
				t.Errorf("Recv() of the next reader = %T, %v", m, err)
			}
			next.Close()
		})
	}
}
