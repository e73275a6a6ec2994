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

// In these tests Hang is 5 s, so the clock of silence ticks each second, and
// the sixth tick without a word makes a silence. Other times are chosen off
// that grid.
const hang = 5 * time.Second

// bubble runs f in a bubble of fake time. When f returns no goroutine may be
// left in it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// talk starts a predecessor whose successor is the script.
func talk(t *testing.T, to session.Timeouts) (*oldSide, script) {
	t.Helper()
	a, b := memPair()
	o := newOldSide(t, to)
	o.start(a)
	return o, script{t, b}
}

func wantTook(t testing.TB, got, want time.Duration) {
	t.Helper()
	if got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

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
	t.Run("stranger that answers", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o, s := talk(t, to)
			s.warm()
			if m := hear[*wire.Rollback](s); !strings.Contains(m.Text, "timed out: not ready within 10.5s") {
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
				t.Errorf("heard %s after RolledBack", got)
			}
		})
	})
	t.Run("silent stranger", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o, s := talk(t, to)
			s.warm()
			_, took := o.wantFailed(failure.Timeout)
			wantTook(t, took, 17*time.Second) // six ticks after Rollback
			wantCalls(t, &o.journal, "")
			if got := s.rest(); got != "Rollback" {
				t.Errorf("heard %s, want Rollback", got)
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
		hear[*wire.Rollback](s)
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
		hear[*wire.Rollback](s)
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
			hear[*wire.Paused](s)
			s.confirm()
			res, _ := o.wantCommitted()
			leave(res)
		})
	})
}

// TestReadyTimeoutStopped stops the predecessor until long after the deadline,
// while Ready waits in its mail.
func TestReadyTimeoutStopped(t *testing.T) {
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

func (s script) confirmAfterPause() {
	s.t.Helper()
	hear[*wire.Paused](s)
	s.confirm()
}

func TestProbation(t *testing.T) {
	tests := []struct {
		probation, took time.Duration
		pings           int // before the final one
	}{
		{0, 1500 * time.Millisecond, 0},
		{-time.Second, 1500 * time.Millisecond, 0},
		{2200 * time.Millisecond, 3700 * time.Millisecond, 2},
		{time.Hour - time.Second, time.Hour + 500*time.Millisecond, 3599},
	}
	for _, tt := range tests {
		t.Run(tt.probation.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o, s := talk(t, session.Timeouts{Ready: time.Minute, Probation: tt.probation, Hang: hang})
				if w := s.warm(); w.Probation != max(tt.probation, 0) || w.HangTimeout != hang || w.ReadyTimeout != time.Minute {
					t.Errorf("Welcome = %+v", w)
				}
				time.Sleep(1500 * time.Millisecond)
				s.say(&wire.Ready{Conns: []string{"x"}})
				if m := hear[*wire.Paused](s); m.Queue != 3 || m.HalfOpen != -1 {
					t.Errorf("Paused = %+v, want what Pause returned", m)
				}
				if tt.probation > 0 {
					pings := 0
					m := hear[*wire.Ping](s)
					for ; !m.Final; m = hear[*wire.Ping](s) {
						s.say(&wire.Alive{Seq: m.Seq})
						pings++
					}
					if pings != tt.pings {
						t.Errorf("%d pings, want %d", pings, tt.pings)
					}
					s.say(&wire.Alive{Seq: m.Seq, Accepted: 9})
				}
				hear[*wire.Commit](s)
				wantCalls(t, &o.journal, "pause")
				s.say(&wire.Committed{Accepted: 10})
				res, took := o.wantCommitted()
				wantTook(t, took, tt.took)
				wantCalls(t, &o.journal, "pause")
				if res.Trial.Accepted != 10 || len(res.Trial.Conns) != 1 || res.Hello.Build != "new" {
					t.Errorf("Run() = %+v", res)
				}
				leave(res)
			})
		})
	}
}

// TestHang has the successor fall silent in each phase that has a limit.
func TestHang(t *testing.T) {
	tests := []struct {
		name  string
		to    session.Timeouts
		child bool
		play  func(s script)
		took  time.Duration
		calls string
		heard string // what the successor would have found in its mail
	}{
		{
			name: "probation", to: session.Timeouts{Probation: time.Hour},
			play: func(s script) { time.Sleep(1500 * time.Millisecond); s.tryOut() },
			took: 13 * time.Second, calls: "pause resume", heard: "Ping Ping Ping Ping Ping Ping Rollback",
		},
		{
			name: "probation, child", to: session.Timeouts{Probation: time.Hour}, child: true,
			play: func(s script) { time.Sleep(1500 * time.Millisecond); s.tryOut() },
			took: 7 * time.Second, calls: "pause resume kill", heard: "Ping Ping Ping Ping Ping Ping Rollback",
		},
		{
			name: "final ping", to: session.Timeouts{Probation: 500 * time.Millisecond},
			play: func(s script) { s.tryOut() },
			took: 12 * time.Second, calls: "pause resume", heard: "Ping Rollback",
		},
		{
			name: "final ping, child", to: session.Timeouts{Probation: 500 * time.Millisecond}, child: true,
			play: func(s script) { s.tryOut() },
			took: 6 * time.Second, calls: "pause resume kill", heard: "Ping Rollback",
		},
		{
			name: "commit, child", to: session.Timeouts{}, child: true,
			play: func(s script) { time.Sleep(500 * time.Millisecond); s.tryOut() },
			took: 6 * time.Second, calls: "pause kill resume", heard: "Commit",
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
				if !tt.child && tt.heard != "" {
					if got := s.rest(); got != tt.heard {
						t.Errorf("successor was told %q, want %q", got, tt.heard)
					}
				}
				b.Close()
			})
		})
	}
}

// TestDoubt has a successor that is not ours to kill fall silent after Commit.
func TestDoubt(t *testing.T) {
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
				hear[*wire.Commit](s)
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

// TestLeaveWhileCommitting asks for the end of the process before Commit is in
// doubt.
func TestLeaveWhileCommitting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, s := talk(t, session.Timeouts{Hang: hang})
		s.tryOut()
		hear[*wire.Commit](s)
		o.cancel <- &session.Error{Reason: failure.RolledBack, Text: "shutdown", Err: failure.Closed}
		res, took := o.wantCommitted()
		wantTook(t, took, 6*time.Second)
		leave(res)
	})
}

// TestStopped stops the predecessor in probation while answers wait.
func TestStopped(t *testing.T) {
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

// TestStoppedWhileSending stops the predecessor between a batch and its
// acknowledgement.
func TestStoppedWhileSending(t *testing.T) {
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
			hear[*wire.Welcome](s)
			for range 5 {
				m := hear[*wire.Sockets](s)
				s.say(&wire.Ack{Seq: m.Seq, Taken: uint32(len(m.Entries))})
			}
			s.say(&wire.Verified{}, &wire.Ready{})
			s.confirmAfterPause()
			res, _ := o.wantCommitted()
			leave(res)
		})
	}
}

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
		name   string
		play   func(o *oldSide, s script)
		reason failure.Reason
		took   time.Duration
		heard  string
		text   string
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
				hear[*wire.Welcome](s)
				synctest.Wait()
				tt.play(o, s)
				res, took := o.wantFailed(tt.reason)
				wantTook(t, took, tt.took)
				wantCalls(t, &o.journal, "")
				if !strings.Contains(res.Err.Error(), tt.text) {
					t.Errorf("Run() = %q, want %q in it", res.Err, tt.text)
				}
				if got := s.rest(); tt.heard != "" && got != tt.heard {
					t.Errorf("successor was told %q, want %q", got, tt.heard)
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
			if m := hear[*wire.Rollback](s); m.Text != "the caller gave up: enough" {
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
				m := hear[*wire.Ping](s)
				s.say(&wire.Alive{Seq: m.Seq})
				if m.Final {
					break
				}
			}
			hear[*wire.Commit](s)
			o.cancel <- enough
			synctest.Wait()
			s.say(&wire.Committed{})
		}, failure.None, "pause"},
		{"after commit, then it dies", func(o *oldSide, s script) {
			s.tryOut()
			for {
				m := hear[*wire.Ping](s)
				s.say(&wire.Alive{Seq: m.Seq})
				if m.Final {
					break
				}
			}
			hear[*wire.Commit](s)
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
			hear[*wire.Welcome](s)
			time.Sleep(30 * time.Second) // no silence: it is our program that takes its time
			o.cancel <- enough
			hear[*wire.Rollback](s)
			s.say(&wire.RolledBack{})
			o.wantFailed(failure.Canceled)
			wantCalls(t, &o.journal, "write")
		})
	})
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
		{"out of turn", func(s script) { s.say(&wire.Verified{}); hear[*wire.Rollback](s); s.say(&wire.RolledBack{}) }, failure.Protocol},
		{"ready timeout", func(s script) { hear[*wire.Rollback](s); s.say(&wire.RolledBack{}) }, failure.Timeout},
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
				hear[*wire.Welcome](s)
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
			hear[*wire.Welcome](s)
			hear[*wire.Rollback](s)
			s.say(&wire.RolledBack{})
			if res, _ := o.wantFailed(failure.Transfer); !errors.Is(res.Err, bad) {
				t.Errorf("Run() = %v, want %v in it", res.Err, bad)
			}
		})
	})
}

// TestOutOfTurn says each message that has no place where it is said.
func TestOutOfTurn(t *testing.T) {
	warming := []wire.Message{&wire.Verified{}, &wire.Committed{}, &wire.RolledBack{}, &wire.Took{}, &wire.Hello{}, &wire.Commit{}, &wire.Welcome{}, &wire.Bye{}, &wire.Conns{}}
	probation := []wire.Message{&wire.Ready{}, &wire.Verified{}, &wire.Committed{}, &wire.RolledBack{}, &wire.Hello{}, &wire.Commit{}, &wire.EndLinger{}}
	run := func(m wire.Message, get func(script), calls string) {
		for _, child := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, child=%t, %q", m.Type(), child, calls), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					a, b := memPair()
					o := newOldSide(t, session.Timeouts{Probation: time.Minute, Hang: hang})
					want := calls
					if child {
						o.ownChild(func() { b.Close() })
						want = strings.TrimSpace(calls + " kill")
					}
					o.start(a)
					s := script{t, b}
					get(s)
					s.say(m)
					if !child {
						heed[*wire.Rollback](s)
						s.say(&wire.RolledBack{})
					}
					o.wantFailed(failure.Protocol)
					wantCalls(t, &o.journal, want)
				})
			})
		}
	}
	t.Parallel()
	for _, m := range warming {
		run(m, func(s script) { s.warm() }, "")
	}
	for _, m := range probation {
		run(m, func(s script) { s.tryOut() }, "pause resume")
	}
}

// TestLateNews says what comes too late to matter.
func TestLateNews(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, s := talk(t, session.Timeouts{Probation: time.Second, Hang: hang})
		s.warm()
		s.say(&wire.Ack{Seq: 99}, &wire.Alive{Seq: 99}, &wire.Ready{}, &wire.Ack{}, &wire.Alive{Seq: 99})
		hear[*wire.Paused](s)
		var last wire.Ping
		for !last.Final {
			last = *hear[*wire.Ping](s)
			s.say(&wire.Alive{Seq: last.Seq - 1})
		}
		time.Sleep(3 * time.Second)
		if len(o.result) > 0 || strings.Contains(o.String(), "resume") {
			t.Error("an old answer ended probation")
		}
		s.say(&wire.Alive{Seq: last.Seq})
		hear[*wire.Commit](s)
		s.say(&wire.Alive{Seq: last.Seq}, &wire.Ack{}, &wire.RolledBack{}, &wire.Committed{})
		res, _ := o.wantCommitted()
		leave(res)
	})
}

// TestCauseOfLatePhases lets the ready timeout pass in probation: what ends the
// upgrade later is the reason.
func TestCauseOfLatePhases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, s := talk(t, session.Timeouts{Ready: 3 * time.Second, Probation: time.Minute, Hang: hang})
		s.tryOut()
		for range 8 {
			s.say(&wire.Alive{Seq: hear[*wire.Ping](s).Seq})
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

// TestLastWords has the end of the successor's process known before its last
// message is read.
func TestLastWords(t *testing.T) {
	t.Run("abort", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o, s := talk(t, session.Timeouts{Ready: time.Minute, Hang: hang})
			s.warm()
			o.exited <- errors.New("exit status 3")
			synctest.Wait()
			time.Sleep(time.Second)
			s.say(&wire.Abort{Text: "no such file"})
			s.link.Close()
			if res, _ := o.wantFailed(failure.Aborted); !strings.Contains(res.Err.Error(), "no such file") {
				t.Errorf("Run() = %v, want the successor's words", res.Err)
			}
		})
	})
	for _, words := range []bool{true, false} {
		t.Run(fmt.Sprintf("end=%t", words), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o, s := talk(t, session.Timeouts{Ready: time.Minute, Hang: hang})
				s.warm()
				o.exited <- errors.New("exit status 3")
				want := hang
				if words {
					synctest.Wait()
					s.link.Close()
					want = 0
				}
				res, took := o.wantFailed(failure.SuccessorDied)
				wantTook(t, took, want)
				if !strings.Contains(res.Err.Error(), "exit status 3") {
					t.Errorf("Run() = %v, want the exit status", res.Err)
				}
			})
		})
	}
	t.Run("before Hello", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o := newOldSide(t, session.Timeouts{Ready: time.Minute, Hang: hang})
			o.startWith(make(chan session.Arrival))
			o.exited <- nil
			if res, _ := o.wantFailed(failure.SuccessorDied); !strings.Contains(res.Err.Error(), "exit status 0") {
				t.Errorf("Run() = %v, want the exit status", res.Err)
			}
		})
	})
}

// TestHangsUp has the successor's end of the conversation close before Hello: if
// its process ends, how it ended is the reason, whichever is heard of first.
func TestHangsUp(t *testing.T) {
	for _, c := range []struct {
		name  string
		ends  bool
		want  string
		after time.Duration
	}{
		{"and ends", true, "exit status 3", 0},
		{"and lives", false, "without a word", hang / session.QuietTicks},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := newOldSide(t, session.Timeouts{Ready: time.Minute, Hang: hang})
				arrivals := make(chan session.Arrival)
				o.startWith(arrivals)
				close(arrivals)
				synctest.Wait()
				if c.ends {
					o.exited <- errors.New("exit status 3")
				}
				res, took := o.wantFailed(failure.SuccessorDied)
				wantTook(t, took, c.after)
				if !strings.Contains(res.Err.Error(), c.want) {
					t.Errorf("Run() = %v, want %q", res.Err, c.want)
				}
			})
		})
	}
}

// TestEngineReady commits by tableflip's word alone.
func TestEngineReady(t *testing.T) {
	t.Run("plain tableflip", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			o := newOldSide(t, session.Timeouts{Ready: time.Minute, Hang: hang})
			ready := make(chan struct{})
			o.EngineReady = ready
			o.startWith(make(chan session.Arrival))
			close(ready)
			if res, _ := o.wantCommitted(); res.Lingering != nil {
				t.Error("Run() lingers with nobody")
			}
			wantCalls(t, &o.journal, "pause")
		})
	})
	t.Run("while withdrawing", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Probation: time.Minute, Hang: hang})
			ready := make(chan struct{})
			o.EngineReady = ready
			o.start(a)
			s := script{t, b}
			s.tryOut()
			o.cancel <- &session.Error{Reason: failure.Canceled, Text: "enough"}
			heed[*wire.Rollback](s)
			close(ready)
			res, _ := o.wantCommitted()
			wantCalls(t, &o.journal, "pause resume pause")
			leave(res)
		})
	})
}

// TestGarbledSuccessor has a living successor break the protocol. It must be
// told: the end of the conversation alone would make it the owner.
func TestGarbledSuccessor(t *testing.T) {
	tests := []struct {
		name  string
		get   func(script)
		calls string
	}{
		{"warming", func(s script) { s.warm() }, ""},
		{"probation", func(s script) { s.tryOut() }, "pause resume"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				o := newOldSide(t, session.Timeouts{Probation: time.Minute, Hang: hang})
				o.start(a)
				s := script{t, b}
				tt.get(s)
				b.garbage(fmt.Errorf("%w: noise", wire.ErrMalformed))
				o.wantFailed(failure.Protocol)
				wantCalls(t, &o.journal, tt.calls)
				if got := s.rest(); got != "Rollback" {
					t.Errorf("successor was told %q, want Rollback", got)
				}
			})
		})
	}
}

func TestNoCommonVersion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := memPair()
		o := newOldSide(t, session.Timeouts{Hang: hang})
		arrivals := make(chan session.Arrival, 1)
		arrivals <- session.Arrival{Link: a, Hello: wire.Hello{MinVersion: wire.MaxVersion + 1, MaxVersion: wire.MaxVersion + 5}}
		o.startWith(arrivals)
		s := script{t, b}
		if m := hear[*wire.Refuse](s); m.Reason != failure.Version {
			t.Errorf("Refuse = %+v, want failure.Version", m)
		}
		o.wantFailed(failure.Version)
		wantCalls(t, &o.journal, "")
	})
}
