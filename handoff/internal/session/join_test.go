package session_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// TestMeanwhile has a join go on beside what needs no answer, and end with it and with
// a signal.
func TestMeanwhile(t *testing.T) {
	refused := errors.New("refused")
	for _, c := range []struct {
		name   string
		signal bool
		err    error
	}{
		{"goes on", false, nil},
		{"fails", false, refused},
		{"signal", true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				s := script{t, b}
				n := newNewSide(t, hang)
				n.joiner.StateTimeout = time.Hour
				signals := make(chan os.Signal, 1)
				n.joiner.Meanwhile = func() (<-chan os.Signal, error) {
					receive[*wire.Hello](s)
					return signals, c.err
				}
				joined := make(chan error, 1)
				go func() { joined <- n.join(a) }()
				if c.err == nil {
					s.say(&wire.Welcome{Version: wire.MaxVersion, HangTimeout: hang, States: 1})
				}
				if c.signal {
					time.Sleep(time.Minute) // its program is writing
					signals <- os.Interrupt
				} else if c.err == nil {
					s.say(&wire.Refuse{Reason: failure.Closed})
				}
				var stopped *session.Stopped
				var e *session.Error
				err := <-joined
				switch {
				case c.signal && (!errors.As(err, &stopped) || stopped.Signal != os.Interrupt):
					t.Errorf("Join: %v, want the signal", err)
				case c.err != nil && (!errors.Is(err, c.err) || !errors.As(err, &e) || e.Reason != failure.Transfer):
					t.Errorf("Join: %v, want %v", err, c.err)
				case !c.signal && c.err == nil && (!errors.Is(err, failure.Closed)):
					t.Errorf("Join: %v, want the predecessor's refusal", err)
				}
				if m := receive[*wire.Abort](s); !strings.Contains(err.Error(), m.Text) {
					t.Errorf("the predecessor was told %q, want %q", m.Text, err)
				}
			})
		})
	}
}

// TestStoppedJoiner stops the successor while it joins.
func TestStoppedJoiner(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b := memPair()
			a.onSend = func(m wire.Message) {
				if _, ok := m.(*wire.Ack); ok {
					time.Sleep(time.Hour)
				}
			}
			n := newNewSide(t, hang)
			n.joiner.Hello.Via = wire.ViaInherit
			s := script{t, b}
			const count = 10
			s.say(&wire.Welcome{Version: wire.MaxVersion, HangTimeout: hang, Sockets: count})
			for i := range uint32(count) {
				s.say(&wire.Sockets{Seq: i + 1, First: i, Entries: make([]wire.Socket, 1)})
			}
			if err := n.join(a); err != nil {
				t.Fatal(err)
			}
			n.start()
			if !n.s.Abort("enough") {
				t.Error("Abort() = false")
			}
			b.Close()
			n.wantQuit(failure.Aborted)
			n.got.Close()
		})
	}
}

// TestJoinRefused says no to a successor in each way.
func TestJoinRefused(t *testing.T) {
	const newer failure.Reason = 70_000
	for said, want := range map[failure.Reason]failure.Reason{
		failure.Version: failure.Version, failure.PeerRefused: failure.PeerRefused, failure.InProgress: failure.InProgress,
		failure.None: failure.Other, newer: newer,
	} {
		t.Run(fmt.Sprintf("reason %d", said), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				s := script{t, b}
				s.say(&wire.Refuse{Reason: said, Text: "no"})
				b.Close() // before Hello is sent
				err := newNewSide(t, hang).join(a)
				var e *session.Error
				if !errors.As(err, &e) || e.Reason != want || !errors.Is(err, want) || e.Text != "no" {
					t.Errorf("Join() = %v, want %v", err, want)
				}
			})
		})
	}
	tests := []struct {
		name   string
		play   func(s script)
		reason failure.Reason
		took   time.Duration
	}{
		{"silent", func(script) {}, failure.Hung, 6 * time.Second},
		{"silent after Welcome", func(s script) { s.say(&wire.Welcome{Version: 1, Sockets: 1}) }, failure.Hung, 6 * time.Second},
		{"dies", func(s script) { s.link.Close() }, failure.PredecessorDied, 0},
		{"dies after Welcome", func(s script) { s.say(&wire.Welcome{Version: 1, Sockets: 1}); s.link.Close() }, failure.PredecessorDied, 0},
		{"rolls back", func(s script) {
			s.say(&wire.Welcome{Version: 1, Sockets: 1}, &wire.Rollback{})
		}, failure.RolledBack, 0},
		{"version too new", func(s script) { s.say(&wire.Welcome{Version: wire.MaxVersion + 1}) }, failure.Version, 0},
		{"version 0", func(s script) { s.say(&wire.Welcome{}) }, failure.Version, 0},
		{"no Welcome", func(s script) { s.say(&wire.Sockets{}) }, failure.Protocol, 0},
		{"garbage", func(s script) { s.link.(*memLink).garbage(wire.ErrMalformed) }, failure.Protocol, 0},
		{"cut off", func(s script) { s.link.(*memLink).garbage(io.ErrUnexpectedEOF) }, failure.PredecessorDied, 0},
		{"Ping before the sockets", func(s script) { s.say(&wire.Welcome{Version: 1, Sockets: 1}, &wire.Ping{}) }, failure.Protocol, 0},
		{"absurd count", func(s script) { s.say(&wire.Welcome{Version: 1, Sockets: 1<<32 - 1}) }, failure.Protocol, 0},
		{"endless nothing", func(s script) {
			s.say(&wire.Welcome{Version: 1, Sockets: 1})
			for range 1000 {
				s.say(&wire.Sockets{})
			}
		}, failure.Protocol, 0},
		{"endless states of nothing", func(s script) {
			s.say(&wire.Welcome{Version: 1, States: 1})
			for range 1000 {
				s.say(&wire.States{})
			}
		}, failure.Protocol, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				s := script{t, b}
				tt.play(s)
				began := time.Now()
				err := newNewSide(t, hang).join(a)
				var e *session.Error
				if !errors.As(err, &e) || e.Reason != tt.reason {
					t.Errorf("Join() = %v, want reason %v", err, tt.reason)
				}
				wantTook(t, time.Since(began), tt.took)
				if !isClosed(a.closed) {
					t.Error("Join() failed and left its link open")
				}
			})
		})
	}
	t.Run("state takes its time", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			script{t, b}.say(&wire.Welcome{Version: 1, States: 1})
			n := newNewSide(t, hang)
			n.joiner.StateTimeout = 50 * time.Second
			began := time.Now()
			var e *session.Error
			if err := n.join(a); !errors.As(err, &e) || e.Reason != failure.Hung {
				t.Errorf("Join() = %v, want reason hung", err)
			}
			wantTook(t, time.Since(began), time.Minute)
		})
	})
	t.Run("no room", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			script{t, b}.say(&wire.Welcome{Version: 1, Sockets: 1 << 29, States: 1 << 29})
			n := newNewSide(t, hang)
			full := errors.New("no room")
			n.joiner.Expect = func(want int) error {
				if want != 1<<30 {
					t.Errorf("Expect(%d)", want)
				}
				return full
			}
			var e *session.Error
			if err := n.join(a); !errors.As(err, &e) || e.Reason != failure.Transfer || !errors.Is(err, full) {
				t.Errorf("Join() = %v, want %v", err, full)
			}
			receive[*wire.Hello](script{t, b})
			receive[*wire.Abort](script{t, b})
		})
	})
}

// TestWelcomed wants what waits for an answer of the predecessor to be done when that has
// come, and not before.
func TestWelcomed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := memPair()
		n := newNewSide(t, hang)
		n.joiner.Meanwhile = nil
		n.joiner.Welcomed = n.call("welcomed")
		joined := make(chan error, 1)
		go func() { joined <- n.join(b) }()
		s := script{t, a}
		receive[*wire.Hello](s)
		time.Sleep(hang / 2) // of the bubble's time: all wait
		wantCalls(t, &n.journal, "")
		s.say(&wire.Welcome{Version: wire.MaxVersion, HangTimeout: hang})
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
		wantCalls(t, &n.journal, "welcomed")
		n.s.Refuse("the test is over")
		_ = a.Close()
	})
}
