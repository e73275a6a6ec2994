package session_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// TestLastWord has a successor that was silent for too long say something at the moment at
// which the predecessor gives it up: if it has taken the sockets, it keeps them, and is not
// killed. After that moment it can't take them any more.
func TestLastWord(t *testing.T) {
	probation := session.Timeouts{Probation: time.Hour, Hang: hang}
	for _, tt := range []struct {
		name   string
		to     session.Timeouts
		child  bool
		mute   bool // the predecessor can't send Ping and Rollback
		word   wire.Message
		calls  string
		reason failure.Reason // None: the successor has the sockets
	}{
		{"probation, child: Took", probation, true, false, &wire.Took{}, "pause", failure.None},
		{"probation, child: Alive", probation, true, false, &wire.Alive{}, "pause resume kill", failure.Hung},
		{"probation, child: Abort", probation, true, false, &wire.Abort{Text: "ill"}, "pause resume", failure.Hung},
		{"probation, child: nothing", probation, true, false, nil, "pause resume kill", failure.Hung},
		{"commit, child: Committed", session.Timeouts{Hang: hang}, true, false, &wire.Committed{}, "pause", failure.None},
		{"commit, child: nothing", session.Timeouts{Hang: hang}, true, false, nil, "pause kill resume", failure.Hung},
		{"withdrawing: Took", probation, false, true, &wire.Took{}, "pause resume pause", failure.None},
		{"withdrawing, child: Took", probation, true, true, &wire.Took{}, "pause resume pause", failure.None},
		{"withdrawing: RolledBack", probation, false, true, &wire.RolledBack{}, "pause resume", failure.Transfer},
		{"withdrawing: nothing", probation, false, true, nil, "pause resume", failure.Transfer},
		{"withdrawing, child: nothing", probation, true, true, nil, "pause resume kill", failure.Transfer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				s := script{t, b}
				o := newOldSide(t, tt.to)
				if tt.child {
					o.ownChild(func() { o.exited <- errors.New("signal: killed") })
				}
				if tt.mute {
					a.refuse = func(m wire.Message) error {
						switch m.(type) {
						case *wire.Ping, *wire.Rollback:
							return syscall.ENOBUFS
						}
						return nil
					}
				}
				a.onHangup = func() {
					if tt.word != nil {
						s.say(tt.word)
					}
				}
				o.start(a)
				s.tryOut()
				defer b.Close()
				if tt.reason == failure.None {
					res, _ := o.wantCommitted()
					wantCalls(t, &o.journal, tt.calls)
					leave(res)
				} else {
					res, _ := o.wantFailed(tt.reason)
					wantCalls(t, &o.journal, tt.calls)
					if tt.reason == failure.Hung && !strings.Contains(res.Err.Error(), "no answer for 5s") {
						t.Errorf("Run() = %v, want the time", res.Err)
					}
				}
				if err := b.Send(&wire.Took{}, nil); !errors.Is(err, syscall.EPIPE) {
					t.Errorf("after the hangup the successor sends Took: %v, want EPIPE", err)
				}
			})
		})
	}
}
