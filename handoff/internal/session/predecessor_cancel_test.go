package session_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

func TestCancel(t *testing.T) {
	enough := &session.Error{Reason: failure.Canceled, Text: "enough"}
	tests := []struct {
		name   string
		play   func(o *oldSide, s script)
		reason failure.Reason
		calls  string
	}{
		{"warming", func(o *oldSide, s script) {
			s.warm()
			o.cancel <- enough
			if m := receive[*wire.Rollback](s); m.Text != "the caller gave up: enough" {
				t.Errorf("Rollback = %+v", m)
			}
			s.say(&wire.Ready{}, &wire.RolledBack{}) // Ready crossed Rollback
		}, failure.Canceled, ""},
		{"probation", func(o *oldSide, s script) {
			s.tryOut()
			o.cancel <- enough
			heed[*wire.Rollback](s)
			wantCalls(t, &o.journal, "pause resume")
			s.say(&wire.Alive{Seq: 1}, &wire.RolledBack{Accepted: 5})
		}, failure.Canceled, "pause resume"},
		{"probation, twice", func(o *oldSide, s script) {
			s.tryOut()
			o.cancel <- enough
			heed[*wire.Rollback](s)
			o.cancel <- enough
			synctest.Wait()
			s.say(&wire.RolledBack{})
		}, failure.Canceled, "pause resume"},
		{"crossing Took", func(o *oldSide, s script) {
			s.tryOut()
			o.cancel <- enough
			heed[*wire.Rollback](s)
			s.say(&wire.Took{})
		}, failure.None, "pause resume pause"},
		{"after commit", func(o *oldSide, s script) {
			s.tryOut()
			for {
				m := receive[*wire.Ping](s)
				s.say(&wire.Alive{Seq: m.Seq})
				if m.Final {
					break
				}
			}
			receive[*wire.Commit](s)
			o.cancel <- enough
			synctest.Wait()
			s.say(&wire.Committed{})
		}, failure.None, "pause"},
		{"after commit, then it dies", func(o *oldSide, s script) {
			s.tryOut()
			for {
				m := receive[*wire.Ping](s)
				s.say(&wire.Alive{Seq: m.Seq})
				if m.Final {
					break
				}
			}
			receive[*wire.Commit](s)
			o.cancel <- enough
			synctest.Wait()
			s.link.Close()
		}, failure.SuccessorDied, "pause resume"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o, s := talk(t, session.Timeouts{Probation: 2500 * time.Millisecond, Hang: hang})
				tt.play(o, s)
				if tt.reason == failure.None {
					res, _ := o.wantCommitted()
					leave(res)
				} else if res, _ := o.wantFailed(tt.reason); strings.Contains(res.Err.Error(), "enough") != (tt.reason != failure.SuccessorDied) {
					t.Errorf("Run() = %v: wrong cause", res.Err)
				}
				wantCalls(t, &o.journal, tt.calls)
			})
		})
	}
	t.Run("before Hello", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o := newOldSide(t, session.Timeouts{Ready: time.Minute, Hang: hang})
			o.ownChild(func() {})
			o.startWith(make(chan session.Arrival))
			o.cancel <- enough
			o.wantFailed(failure.Canceled)
			wantCalls(t, &o.journal, "kill")
		})
	})
	t.Run("while state is written", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Ready: time.Minute, Hang: hang})
			o.Welcome.States = 1
			o.States = func(ctx context.Context) ([]session.Blob, error) {
				o.note("write")
				<-ctx.Done()
				return nil, ctx.Err()
			}
			o.start(a)
			s := script{t, b}
			receive[*wire.Welcome](s)
			time.Sleep(30 * time.Second) // no silence: it is our program that takes its time
			o.cancel <- enough
			receive[*wire.Rollback](s)
			s.say(&wire.RolledBack{})
			o.wantFailed(failure.Canceled)
			wantCalls(t, &o.journal, "write")
		})
	})
}

// TestLateReadyTimeoutIsNoReason lets the ready timeout pass in probation: what ends the
// upgrade later is the reason.
func TestLateReadyTimeoutIsNoReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, s := talk(t, session.Timeouts{Ready: 3 * time.Second, Probation: time.Minute, Hang: hang})
		s.tryOut()
		for range 8 {
			s.say(&wire.Alive{Seq: receive[*wire.Ping](s).Seq})
		}
		o.cancel <- &session.Error{Reason: failure.RolledBack, Text: "operator"}
		m := heed[*wire.Rollback](s)
		s.say(&wire.RolledBack{})
		res, _ := o.wantFailed(failure.RolledBack)
		for _, text := range []string{res.Err.Error(), m.Text} {
			if !strings.Contains(text, "operator") || strings.Contains(text, "not ready") {
				t.Errorf("reason %q, want the operator's", text)
			}
		}
	})
}
