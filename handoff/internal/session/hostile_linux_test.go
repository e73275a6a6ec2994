package session_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// frame returns a frame as it is on the wire.
func frame(size uint32, typ wire.Type, fds uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	b = binary.BigEndian.AppendUint16(b, fds)
	return append(b, payload...)
}

// noise is what a peer says that does not speak the protocol.
var noise = []struct {
	name   string
	bytes  []byte
	reason failure.Reason // that a successor gives
}{
	{"text", []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"), failure.Protocol},
	{"length of 4 GiB", frame(1<<32-1, wire.TypeWelcome, 0, nil), failure.Protocol},
	{"254 descriptors", frame(0, wire.TypeWelcome, 254, nil), failure.Protocol},
	{"descriptors that do not come", frame(0, wire.TypeSockets, 3, nil), failure.Transfer},
	{"malformed payload", frame(4, wire.TypeSockets, 0, bytes.Repeat([]byte{0xff}, 4)), failure.Protocol},
	{"too many entries", frame(600, wire.TypeReady, 0, bytes.Repeat([]byte{1, 0}, 300)), failure.Protocol},
}

// TestNoiseToPredecessor breaks the protocol in the successor's place.
func TestNoiseToPredecessor(t *testing.T) {
	t.Parallel()
	for _, tt := range noise {
		for _, step := range []int{afterHello, beforeVerified, beforeReady, afterReady, afterCommit} {
			t.Run(tt.name+", "+stepNames[step], func(t *testing.T) {
				t.Parallel()
				ca, cb := socketpair(t)
				to := session.Timeouts{Ready: time.Minute, Probation: time.Minute, Hang: 3 * time.Second}
				if step == afterCommit {
					to.Probation = 10 * time.Millisecond
				}
				o := newOldSide(t, to)
				w := newWitness(t)
				o.items = w.items(3 * 253)
				raw, err := fdx.Dup(cb)
				if err != nil {
					t.Fatal(err)
				}
				defer fdx.Close(raw)
				s := script{t, session.NewWireLink(fdpass.New(cb), time.Second)}
				o.start(session.NewWireLink(fdpass.New(ca), to.Hang))
				s.successorUpTo(step)
				if _, err := unix.Write(raw, tt.bytes); err != nil {
					t.Fatal(err)
				}
				want, calls := failure.Protocol, ""
				switch {
				case step == afterReady:
					calls = "pause resume"
				case step == afterCommit:
					want, calls = failure.SuccessorDied, "pause resume"
				}
				o.wantFailed(want)
				wantCalls(t, &o.journal, calls)
				if step != afterCommit {
					heed[*wire.Rollback](s)
				}
				s.link.Close()
				w.gone()
			})
		}
	}
}

// TestEndlessBytes has a successor that never stops to send.
func TestEndlessBytes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		bytes []byte
	}{
		{"zeros", make([]byte, 1<<16)},
		{"unknown messages", bytes.Repeat(frame(1000, 999, 0, make([]byte, 1000)), 64)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ca, cb := socketpair(t)
			o := newOldSide(t, session.Timeouts{Ready: 300 * time.Millisecond, Hang: 100 * time.Millisecond})
			o.items = noFDs(1)
			written := make(chan struct{})
			go func() { // ends with the connection
				defer close(written)
				for {
					if _, err := cb.Write(tt.bytes); err != nil {
						return
					}
				}
			}()
			o.start(session.NewWireLink(fdpass.New(ca), 100*time.Millisecond))
			o.end()
			wantCalls(t, &o.journal, "")
			<-written
		})
	}
}

// TestStrayDescriptors has a successor attach descriptors to messages that
// carry none.
func TestStrayDescriptors(t *testing.T) {
	t.Parallel()
	a, b := wirePair(t, 10*time.Second)
	w := newWitness(t)
	o := newOldSide(t, session.Timeouts{Probation: 10 * time.Millisecond, Hang: 10 * time.Second})
	o.items = w.items(1)
	o.start(a)
	s := script{t, b}
	receive[*wire.Welcome](s)
	say := func(m wire.Message) {
		t.Helper()
		if err := b.Send(m, []int{w.dup(), w.dup()}); err != nil {
			t.Fatal(err)
		}
	}
	receive[*wire.Sockets](s)
	say(&wire.Ack{Seq: 1, Taken: 1})
	say(&wire.Verified{})
	say(&wire.Ready{})
	receive[*wire.Paused](s)
	m := receive[*wire.Ping](s)
	for ; !m.Final; m = receive[*wire.Ping](s) {
		say(&wire.Alive{Seq: m.Seq})
	}
	say(&wire.Alive{Seq: m.Seq})
	receive[*wire.Commit](s)
	say(&wire.Committed{})
	res, _ := o.wantCommitted()
	done := make(chan struct{})
	go func() { defer close(done); res.Lingering.Run() }()
	say(&wire.Ack{Seq: 77, Taken: 9})
	say(&wire.EndLinger{Text: "enough"})
	if got := <-res.Lingering.Asked(); got != "enough" {
		t.Errorf("Asked() = %q", got)
	}
	res.Lingering.Bye(wire.Bye{})
	<-done
	b.Close()
	w.gone()
}

// TestHostilePredecessor lies to a successor in each way.
func TestHostilePredecessor(t *testing.T) {
	t.Parallel()
	type say func(m wire.Message, fds int)
	sockets := func(first uint32, n int) *wire.Sockets {
		return &wire.Sockets{Seq: 1, First: first, Entries: make([]wire.Socket, n)}
	}
	tests := []struct {
		name   string
		play   func(say say)
		reason failure.Reason
	}{
		{"fewer descriptors", func(say say) { say(sockets(0, 3), 2) }, failure.Protocol},
		{"more descriptors", func(say say) { say(sockets(0, 3), 4) }, failure.Protocol},
		{"no descriptors", func(say say) { say(sockets(0, 3), 0) }, failure.Protocol},
		{"more than announced", func(say say) { say(sockets(0, 3), 3); say(sockets(3, 3), 3) }, failure.Protocol},
		{"same twice", func(say say) { say(sockets(0, 2), 2); say(sockets(0, 2), 2) }, failure.Protocol},
		{"hole", func(say say) { say(sockets(1, 2), 2) }, failure.Protocol},
		{"empty batch", func(say say) { say(sockets(0, 0), 0) }, failure.Protocol},
		{"empty batch, descriptors", func(say say) { say(sockets(0, 0), 5) }, failure.Protocol},
		{"standard error of two", func(say say) { say(&wire.Stderr{}, 2) }, failure.Protocol},
		{"standard error twice", func(say say) { say(&wire.Stderr{}, 3); say(&wire.Stderr{}, 3) }, failure.Protocol},
		{"refusal with descriptors", func(say say) { say(&wire.Refuse{Reason: failure.PeerRefused}, 3) }, failure.PeerRefused},
		{"rollback with descriptors", func(say say) { say(sockets(0, 3), 3); say(&wire.Rollback{}, 3) }, failure.RolledBack},
		{"connections with descriptors", func(say say) { say(&wire.Conns{}, 3) }, failure.Protocol},
		{"states that lie", func(say say) { say(&wire.States{Entries: make([]wire.State, 2)}, 1) }, failure.Protocol},
		{"state that is no file", func(say say) { say(&wire.States{Entries: make([]wire.State, 1)}, 1) }, failure.Transfer},
		{"more states", func(say say) { say(&wire.States{Entries: make([]wire.State, 2)}, 2) }, failure.Protocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := wirePair(t, 10*time.Second)
			w := newWitness(t)
			say := func(m wire.Message, fds int) {
				var some []int
				for range fds {
					some = append(some, w.dup())
				}
				if err := b.Send(m, some); err != nil {
					t.Errorf("Send(%T) = %v", m, err)
				}
			}
			say(&wire.Welcome{Version: 1, Sockets: 5, States: 1}, 7)
			tt.play(say)
			err := newNewSide(t, 10*time.Second).join(a)
			var e *session.Error
			if !errors.As(err, &e) || e.Reason != tt.reason {
				t.Errorf("Join() = %v, want reason %v", err, tt.reason)
			}
			b.Close()
			w.gone()
		})
	}
	for _, tt := range noise {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ca, cb := socketpair(t)
			if _, err := cb.Write(tt.bytes); err != nil {
				t.Fatal(err)
			}
			var e *session.Error
			if err := newNewSide(t, 10*time.Second).join(session.NewWireLink(fdpass.New(ca), time.Second)); !errors.As(err, &e) || e.Reason != tt.reason {
				t.Errorf("Join() = %v, want reason %v", err, tt.reason)
			}
		})
	}
	t.Run("deaf", func(t *testing.T) {
		t.Parallel()
		ca, cb := socketpair(t)
		w := newWitness(t)
		link := session.NewWireLink(fdpass.New(cb), time.Second)
		if err := link.Send(&wire.Stderr{}, []int{w.dup(), w.dup(), w.dup()}); err != nil {
			t.Fatal(err)
		}
		if err := ca.CloseWrite(); err != nil { // Hello can't be sent
			t.Fatal(err)
		}
		var e *session.Error
		if err := newNewSide(t, time.Second).join(session.NewWireLink(fdpass.New(ca), time.Second)); !errors.As(err, &e) || e.Reason != failure.PredecessorDied {
			t.Errorf("Join() = %v, want reason died", err)
		}
		cb.Close()
		w.gone()
	})
}

// TestHostileStates sends state blobs that are not what they should be.
func TestHostileStates(t *testing.T) {
	t.Parallel()
	open, err := fdx.NewBlob("open")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { open.Close() })
	short := blob(t, "short", 10)
	t.Cleanup(func() { short.File.Close() })
	tests := []struct {
		name, text string
		f          *os.File
		size       uint64
	}{
		{"unsealed", "sealed", open, 0},
		{"longer than it is", "10 bytes, want 11", short.File, 11},
		{"shorter than it is", "10 bytes, want 0", short.File, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, n := newOldSide(t, session.Timeouts{Hang: 10 * time.Second}), newNewSide(t, 10*time.Second)
			o.Welcome.States = 1
			o.States = func(context.Context) ([]session.Blob, error) {
				fd, err := fdx.Dup(tt.f)
				return []session.Blob{{Name: "s", Size: tt.size, File: os.NewFile(uintptr(fd), "s")}}, err
			}
			a, b := wirePair(t, 10*time.Second)
			o.greet(a)
			if err := n.join(b); !errors.Is(err, session.ErrMismatch) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Join() = %v, want %s", err, tt.text)
			}
			o.wantFailed(failure.Aborted)
			wantCalls(t, &o.journal, "")
		})
	}
}
