package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// noFDs returns a manifest of n sockets that the successor has inherited.
func noFDs(n int) []session.Item {
	items := make([]session.Item, n)
	for i := range items {
		items[i] = session.Item{Socket: wire.Socket{Kind: wire.KindListener, Network: "tcp", Shard: uint32(i)}, Inherited: true}
	}
	return items
}

// TestSending ends the transfer in each way.
func TestSending(t *testing.T) {
	tests := []struct {
		name     string
		play     func(o *oldSide, s script)
		reason   failure.Reason
		took     time.Duration
		received string
		text     string
	}{
		{"silent", func(*oldSide, script) {}, failure.Hung, 11 * time.Second, "Sockets Sockets Rollback", "no acknowledgement within 5s"},
		{"cancel", func(o *oldSide, s script) {
			o.cancel <- &session.Error{Reason: failure.Canceled, Text: "enough"}
			synctest.Wait()
			s.say(&wire.RolledBack{})
		}, failure.Canceled, 0, "Sockets Sockets Rollback", "enough"},
		{"abort", func(_ *oldSide, s script) { s.say(&wire.Ack{Seq: 1}, &wire.Abort{Text: "bad socket"}) }, failure.Aborted, 0, "Sockets Sockets Sockets", "bad socket"},
		{"dies", func(_ *oldSide, s script) { s.link.Close() }, failure.SuccessorDied, 0, "", "conversation ended"},
		{"Ready instead of Ack", func(_ *oldSide, s script) {
			s.say(&wire.Ready{})
			synctest.Wait()
			s.say(&wire.RolledBack{})
		}, failure.Protocol, 0, "Sockets Sockets Rollback", "Ready"},
		{"ready timeout", func(_ *oldSide, s script) {
			time.Sleep(4 * time.Second)
			s.say(&wire.Ack{Seq: 1})
			time.Sleep(4 * time.Second)
			s.say(&wire.Ack{Seq: 2})
			time.Sleep(4 * time.Second)
			s.say(&wire.RolledBack{})
		}, failure.Timeout, 12 * time.Second, "Sockets Sockets Sockets Sockets Rollback", "not ready within 10s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				o := newOldSide(t, session.Timeouts{Ready: 10 * time.Second, Hang: hang})
				if tt.name == "silent" {
					o.Timeouts.Ready = time.Minute
				}
				o.items = noFDs(5 * 253)
				o.start(a)
				s := script{t, b}
				receive[*wire.Welcome](s)
				synctest.Wait()
				tt.play(o, s)
				res, took := o.wantFailed(tt.reason)
				wantTook(t, took, tt.took)
				wantCalls(t, &o.journal, "")
				if !strings.Contains(res.Err.Error(), tt.text) {
					t.Errorf("Run() = %q, want %q in it", res.Err, tt.text)
				}
				if got := s.rest(); tt.received != "" && got != tt.received {
					t.Errorf("the successor received %q, want %q", got, tt.received)
				}
			})
		})
	}
}

// TestDiesBeforeSockets has the successor die before the first batch is sent:
// that is a death, whatever the send error says.
func TestDiesBeforeSockets(t *testing.T) {
	for _, last := range []wire.Message{nil, &wire.Abort{Text: "changed my mind"}} {
		t.Run(fmt.Sprintf("%T", last), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				if last != nil {
					_ = b.Send(last, nil)
				}
				b.Close()
				o := newOldSide(t, session.Timeouts{Hang: hang})
				o.items = noFDs(1)
				o.start(a)
				if last == nil {
					o.wantFailed(failure.SuccessorDied)
				} else if res, _ := o.wantFailed(failure.Aborted); !strings.Contains(res.Err.Error(), "changed my mind") {
					t.Errorf("Run() = %v, want the successor's words", res.Err)
				}
			})
		})
	}
}

// TestWritingState ends the conversation while the program writes its state.
func TestWritingState(t *testing.T) {
	tests := []struct {
		name   string
		play   func(s script)
		reason failure.Reason
	}{
		{"dies", func(s script) { s.link.Close() }, failure.SuccessorDied},
		{"abort", func(s script) { s.say(&wire.Abort{Text: "no"}) }, failure.Aborted},
		{"out of turn", func(s script) { s.say(&wire.Verified{}); receive[*wire.Rollback](s); s.say(&wire.RolledBack{}) }, failure.Protocol},
		{"ready timeout", func(s script) { receive[*wire.Rollback](s); s.say(&wire.RolledBack{}) }, failure.Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				o := newOldSide(t, session.Timeouts{Ready: time.Minute, Hang: hang})
				o.Welcome.States = 1
				o.States = func(ctx context.Context) ([]session.Blob, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				o.start(a)
				s := script{t, b}
				receive[*wire.Welcome](s)
				tt.play(s)
				o.wantFailed(tt.reason)
				wantCalls(t, &o.journal, "")
			})
		})
	}
	t.Run("fails", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Hang: hang})
			o.Welcome.States = 1
			bad := errors.New("disk on fire")
			o.States = func(context.Context) ([]session.Blob, error) { return nil, bad }
			o.start(a)
			s := script{t, b}
			receive[*wire.Welcome](s)
			receive[*wire.Rollback](s)
			s.say(&wire.RolledBack{})
			if res, _ := o.wantFailed(failure.Transfer); !errors.Is(res.Err, bad) {
				t.Errorf("Run() = %v, want %v in it", res.Err, bad)
			}
		})
	})
}
