package session_test

import (
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

func TestReadyTimeoutWaiting(t *testing.T) {
	for _, child := range []bool{false, true} {
		t.Run(fmt.Sprintf("child=%t", child), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := newOldSide(t, session.Timeouts{Ready: 10500 * time.Millisecond, Hang: hang})
				want := ""
				if child {
					o.ownChild(func() {})
					want = "kill"
				}
				o.startWith(make(chan session.Arrival))
				_, took := o.wantFailed(failure.Timeout)
				wantTook(t, took, 11500*time.Millisecond) // with one tick's grace
				wantCalls(t, &o.journal, want)
			})
		})
	}
}

func TestReadyTimeoutWarming(t *testing.T) {
	to := session.Timeouts{Ready: 10500 * time.Millisecond, Hang: hang}
	t.Run("unrelated process that answers", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o, s := talk(t, to)
			s.warm()
			if m := receive[*wire.Rollback](s); !strings.Contains(m.Text, "timed out: not ready within 10.5s") {
				t.Errorf("Rollback = %+v", m)
			}
			s.say(&wire.RolledBack{Accepted: 4})
			res, took := o.wantFailed(failure.Timeout)
			wantTook(t, took, 11500*time.Millisecond)
			wantCalls(t, &o.journal, "")
			if res.Trial.Accepted != 4 {
				t.Errorf("Trial.Accepted = %d, want 4", res.Trial.Accepted)
			}
			if got := s.rest(); got != "" {
				t.Errorf("received %s after RolledBack", got)
			}
		})
	})
	t.Run("silent unrelated process", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o, s := talk(t, to)
			s.warm()
			_, took := o.wantFailed(failure.Timeout)
			wantTook(t, took, 17*time.Second) // six ticks after Rollback
			wantCalls(t, &o.journal, "")
			if got := s.rest(); got != "Rollback" {
				t.Errorf("received %s, want Rollback", got)
			}
		})
	})
	child := func(f func(t *testing.T, o *oldSide, s script)) func(t *testing.T) {
		return func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				o := newOldSide(t, to)
				o.ownChild(func() { b.Close() })
				o.start(a)
				s := script{t, b}
				s.warm()
				f(t, o, s)
			})
		}
	}
	t.Run("child", child(func(t *testing.T, o *oldSide, s script) {
		receive[*wire.Rollback](s)
		s.say(&wire.RolledBack{})
		_, took := o.wantFailed(failure.Timeout)
		wantTook(t, took, 11500*time.Millisecond)
		wantCalls(t, &o.journal, "kill") // its program may hang
	}))
	t.Run("silent child", child(func(t *testing.T, o *oldSide, s script) {
		_, took := o.wantFailed(failure.Timeout)
		wantTook(t, took, 17*time.Second) // six ticks after Rollback
		wantCalls(t, &o.journal, "kill")
	}))
	t.Run("child that was ready by then", child(func(t *testing.T, o *oldSide, s script) {
		receive[*wire.Rollback](s)
		s.say(&wire.Ready{})
		s.say(&wire.RolledBack{Accepted: 4})
		res, took := o.wantFailed(failure.Timeout)
		wantTook(t, took, 11500*time.Millisecond)
		wantCalls(t, &o.journal, "") // it goes on with what it has accepted
		if res.Trial.Accepted != 4 {
			t.Errorf("Trial.Accepted = %d, want 4", res.Trial.Accepted)
		}
	}))
	t.Run("no limit", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o, s := talk(t, session.Timeouts{Hang: hang})
			s.warm()
			time.Sleep(24 * time.Hour)
			s.say(&wire.Ready{})
			receive[*wire.Paused](s)
			s.confirm()
			res, _ := o.wantCommitted()
			leave(res)
		})
	})
}

// TestReadyArrivesWhilePredecessorIsStopped stops the predecessor until long after the deadline,
// while Ready waits in its mail.
func TestReadyArrivesWhilePredecessorIsStopped(t *testing.T) {
	t.Parallel()
	for range 20 { // select chooses at random
		synctest.Test(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Ready: 10 * time.Second, Hang: hang})
			o.Entered = func(ph session.Phase) {
				if ph == session.PhaseWarming {
					time.Sleep(time.Hour)
				}
			}
			o.start(a)
			s := script{t, b}
			s.warm()
			s.say(&wire.Ready{})
			s.confirmAfterPause()
			res, _ := o.wantCommitted()
			leave(res)
		})
	}
}

// TestHang has the successor fall silent in each phase that has a limit.
func TestHang(t *testing.T) {
	tests := []struct {
		name     string
		to       session.Timeouts
		child    bool
		play     func(s script)
		took     time.Duration
		calls    string
		received string // what the successor would have found in its mail
	}{
		{
			name: "probation", to: session.Timeouts{Probation: time.Hour},
			play: func(s script) { time.Sleep(1500 * time.Millisecond); s.tryOut() },
			took: 13 * time.Second, calls: "pause resume", received: "Ping Ping Ping Ping Ping Ping Rollback",
		},
		{
			name: "probation, child", to: session.Timeouts{Probation: time.Hour}, child: true,
			play: func(s script) { time.Sleep(1500 * time.Millisecond); s.tryOut() },
			took: 7 * time.Second, calls: "pause resume kill", received: "Ping Ping Ping Ping Ping Ping Rollback",
		},
		{
			name: "final ping", to: session.Timeouts{Probation: 500 * time.Millisecond},
			play: func(s script) { s.tryOut() },
			took: 12 * time.Second, calls: "pause resume", received: "Ping Rollback",
		},
		{
			name: "final ping, child", to: session.Timeouts{Probation: 500 * time.Millisecond}, child: true,
			play: func(s script) { s.tryOut() },
			took: 6 * time.Second, calls: "pause resume kill", received: "Ping Rollback",
		},
		{
			name: "commit, child", to: session.Timeouts{}, child: true,
			play: func(s script) { time.Sleep(500 * time.Millisecond); s.tryOut() },
			took: 6 * time.Second, calls: "pause kill resume", received: "Commit",
		},
		{
			// A flood of old news is no sign of life.
			name: "final ping, old answers", to: session.Timeouts{Probation: 500 * time.Millisecond}, child: true,
			play: func(s script) {
				s.tryOut()
				for range 9 {
					time.Sleep(600 * time.Millisecond)
					s.say(&wire.Alive{}, &wire.Ack{})
				}
			},
			took: 6 * time.Second, calls: "pause resume kill",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				tt.to.Hang = hang
				o := newOldSide(t, tt.to)
				if tt.child {
					o.ownChild(func() {
						b.Close()
						o.exited <- errors.New("signal: killed")
					})
				}
				o.start(a)
				s := script{t, b}
				tt.play(s)
				res, took := o.wantFailed(failure.Hung)
				wantTook(t, took, tt.took)
				wantCalls(t, &o.journal, tt.calls)
				if !strings.Contains(res.Err.Error(), "no answer for 5s") {
					t.Errorf("Run() = %v, want the time", res.Err)
				}
				if !tt.child && tt.received != "" {
					if got := s.rest(); got != tt.received {
						t.Errorf("the successor received %q, want %q", got, tt.received)
					}
				}
				b.Close()
			})
		})
	}
}

// TestSilenceAfterCommit has a successor that is not ours to kill fall silent after Commit.
func TestSilenceAfterCommit(t *testing.T) {
	tests := []struct {
		name   string
		then   func(o *oldSide, s script)
		calls  string
		reason failure.Reason
	}{
		{"Committed", func(_ *oldSide, s script) { s.say(&wire.Committed{}) }, "pause resume pause", failure.None},
		{"Took", func(_ *oldSide, s script) { s.say(&wire.Took{}) }, "pause resume pause", failure.None},
		{"Abort", func(_ *oldSide, s script) { s.say(&wire.Abort{Text: "ill"}) }, "pause resume", failure.Aborted},
		{"dies", func(_ *oldSide, s script) { s.link.Close() }, "pause resume", failure.SuccessorDied},
		{"rolled back, dies", func(o *oldSide, s script) {
			o.cancel <- &session.Error{Reason: failure.RolledBack, Text: "operator"}
			time.Sleep(time.Hour)
			if len(o.result) > 0 {
				o.t.Error("Run() returned: it can't know who owns the sockets")
			}
			s.link.Close()
		}, "pause resume", failure.SuccessorDied},
		{"we leave", func(o *oldSide, s script) {
			o.cancel <- &session.Error{Reason: failure.RolledBack, Text: "shutdown", Err: failure.Closed}
		}, "pause resume pause", failure.None},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o, s := talk(t, session.Timeouts{Hang: hang})
				s.tryOut()
				receive[*wire.Commit](s)
				time.Sleep(time.Hour)
				synctest.Wait()
				wantCalls(t, &o.journal, "pause resume")
				if len(o.result) > 0 {
					t.Fatal("Run() returned in doubt")
				}
				tt.then(o, s)
				if tt.reason == failure.None {
					res, _ := o.wantCommitted()
					leave(res)
				} else if res, _ := o.wantFailed(tt.reason); strings.Contains(res.Err.Error(), "no answer") {
					t.Errorf("Run() = %v, which is not why", res.Err)
				}
				wantCalls(t, &o.journal, tt.calls)
			})
		})
	}
}

// TestShutdownBeforeCommitIsInDoubt asks for the end of the process before Commit is in
// doubt.
func TestShutdownBeforeCommitIsInDoubt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, s := talk(t, session.Timeouts{Hang: hang})
		s.tryOut()
		receive[*wire.Commit](s)
		o.cancel <- &session.Error{Reason: failure.RolledBack, Text: "shutdown", Err: failure.Closed}
		res, took := o.wantCommitted()
		wantTook(t, took, 6*time.Second)
		leave(res)
	})
}

// TestAnswersArriveWhileStopped stops the predecessor in probation while answers wait.
func TestAnswersArriveWhileStopped(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b := memPair()
			stops := 0
			a.onSend = func(m wire.Message) {
				if _, ok := m.(*wire.Ping); ok && stops < 3 {
					stops++
					time.Sleep(time.Minute)
				}
			}
			o := newOldSide(t, session.Timeouts{Probation: 10 * time.Minute, Hang: hang})
			o.start(a)
			s := script{t, b}
			s.tryOut()
			s.confirm()
			res, _ := o.wantCommitted()
			wantCalls(t, &o.journal, "pause")
			leave(res)
		})
	}
}

// TestAcknowledgementArrivesWhileStopped stops the predecessor between a batch and its
// acknowledgement.
func TestAcknowledgementArrivesWhileStopped(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b := memPair()
			a.onSend = func(m wire.Message) {
				if m, ok := m.(*wire.Sockets); ok && m.Seq == 3 {
					time.Sleep(time.Hour)
				}
			}
			o := newOldSide(t, session.Timeouts{Hang: hang})
			o.items = noFDs(5 * 253)
			o.start(a)
			s := script{t, b}
			receive[*wire.Welcome](s)
			for range 5 {
				m := receive[*wire.Sockets](s)
				s.say(&wire.Ack{Seq: m.Seq, Taken: uint32(len(m.Entries))})
			}
			s.say(&wire.Verified{}, &wire.Ready{})
			s.confirmAfterPause()
			res, _ := o.wantCommitted()
			leave(res)
		})
	}
}
