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

func (s script) confirmAfterPause() {
	s.t.Helper()
	receive[*wire.Paused](s)
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
				if m := receive[*wire.Paused](s); m.Queue != 3 || m.HalfOpen != -1 {
					t.Errorf("Paused = %+v, want what Pause returned", m)
				}
				if tt.probation > 0 {
					pings := 0
					m := receive[*wire.Ping](s)
					for ; !m.Final; m = receive[*wire.Ping](s) {
						s.say(&wire.Alive{Seq: m.Seq})
						pings++
					}
					if pings != tt.pings {
						t.Errorf("%d pings, want %d", pings, tt.pings)
					}
					s.say(&wire.Alive{Seq: m.Seq, Accepted: 9})
				}
				receive[*wire.Commit](s)
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

// TestIgnoresLateMessages says what comes too late to matter.
func TestIgnoresLateMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o, s := talk(t, session.Timeouts{Probation: time.Second, Hang: hang})
		s.warm()
		s.say(&wire.Ack{Seq: 99}, &wire.Alive{Seq: 99}, &wire.Ready{}, &wire.Ack{}, &wire.Alive{Seq: 99})
		receive[*wire.Paused](s)
		var last wire.Ping
		for !last.Final {
			last = *receive[*wire.Ping](s)
			s.say(&wire.Alive{Seq: last.Seq - 1})
		}
		time.Sleep(3 * time.Second)
		if len(o.result) > 0 || strings.Contains(o.String(), "resume") {
			t.Error("an old answer ended probation")
		}
		s.say(&wire.Alive{Seq: last.Seq})
		receive[*wire.Commit](s)
		s.say(&wire.Alive{Seq: last.Seq}, &wire.Ack{}, &wire.RolledBack{}, &wire.Committed{})
		res, _ := o.wantCommitted()
		leave(res)
	})
}

// TestReadsLastMessageOfDeadSuccessor has the end of the successor's process known before its last
// message is read.
func TestReadsLastMessageOfDeadSuccessor(t *testing.T) {
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

// TestSuccessorClosesBeforeHello has the successor's end of the conversation close before Hello: if
// its process ends, how it ended is the reason, whichever is noticed first.
func TestSuccessorClosesBeforeHello(t *testing.T) {
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
				t.Error("Run() lingers without a successor")
			}
			wantCalls(t, &o.journal, "pause")
		})
	})
	t.Run("before Ready is read", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			a, b := memPair()
			o := newOldSide(t, session.Timeouts{Probation: time.Minute, Hang: hang})
			ready := make(chan struct{})
			o.EngineReady = ready
			o.Announced = func(*wire.Ready) { o.note("announced") }
			o.start(a)
			s := script{t, b}
			s.warm()
			close(ready)
			synctest.Wait()
			s.say(&wire.Ready{})
			res, _ := o.wantCommitted()
			wantCalls(t, &o.journal, "announced pause")
			leave(res)
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

// TestTellsSuccessorThatBreaksProtocol has a living successor break the protocol. It must be
// told: the end of the conversation alone would make it the owner.
func TestTellsSuccessorThatBreaksProtocol(t *testing.T) {
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
		if m := receive[*wire.Refuse](s); m.Reason != failure.Version {
			t.Errorf("Refuse = %+v, want failure.Version", m)
		}
		o.wantFailed(failure.Version)
		wantCalls(t, &o.journal, "")
	})
}
