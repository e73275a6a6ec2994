package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// listen starts a successor whose predecessor is the script, up to Verified.
func listen(t *testing.T, set func(s *session.Successor)) (*newSide, script) {
	t.Helper()
	a, b := memPair()
	n := newNewSide(t, hang)
	s := script{t, b}
	joined := make(chan error, 1)
	go func() { joined <- n.join(a) }()
	s.welcome(hang)
	receive[*wire.Verified](s)
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(n.s)
	}
	n.start()
	return n, s
}

func (n *newSide) ready() {
	n.t.Helper()
	if !n.s.Ready() {
		n.t.Error("Ready() = false")
	}
}

func TestCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, s := listen(t, func(s *session.Successor) { s.Conns = func() []string { return []string{"x", "y"} } })
		time.Sleep(time.Hour) // a start may take its time, and the predecessor is silent
		wantCalls(t, &n.journal, "")
		n.ready()
		wantCalls(t, &n.journal, "open")
		if m := receive[*wire.Ready](s); !cmp.Equal(m.Conns, []string{"x", "y"}) {
			t.Errorf("Ready = %+v", m)
		}
		s.say(&wire.Paused{}, &wire.Ping{Seq: 4, Final: true})
		if m := receive[*wire.Alive](s); m.Seq != 4 || m.Accepted != 7 {
			t.Errorf("Alive = %+v", m)
		}
		wantCalls(t, &n.journal, "open")
		s.say(&wire.Commit{})
		if m := receive[*wire.Committed](s); m.Accepted != 7 {
			t.Errorf("Committed = %+v", m)
		}
		n.wantOwner(false)
		wantCalls(t, &n.journal, "open own")
		if !n.s.Ready() || n.s.Abort("too late") {
			t.Error("an owner is not ready, or can abort")
		}
	})
}

// TestSilentPredecessor has the predecessor fall silent.
func TestSilentPredecessor(t *testing.T) {
	t.Run("probation", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			time.Sleep(1500 * time.Millisecond)
			n.ready()
			began := time.Now()
			n.wantOwner(true)
			wantTook(t, time.Since(began), 5500*time.Millisecond) // six ticks
			wantCalls(t, &n.journal, "open own")
			if got := s.rest(); got != "Ready Took" {
				t.Errorf("predecessor was told %q, want Ready Took", got)
			}
		})
	})
	t.Run("after the final ping", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			time.Sleep(1500 * time.Millisecond)
			n.ready()
			time.Sleep(4 * time.Second)
			s.say(&wire.Ping{Seq: 1, Final: true})
			synctest.Wait()
			began := time.Now()
			n.wantOwner(true)
			wantTook(t, time.Since(began), 5500*time.Millisecond)
			wantCalls(t, &n.journal, "open own")
		})
	})
}

// TestStoppedSuccessor stops the successor in probation while its mail waits.
func TestStoppedSuccessor(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b := memPair()
			a.onSend = func(m wire.Message) {
				if _, ok := m.(*wire.Alive); ok {
					time.Sleep(time.Hour)
				}
			}
			n := newNewSide(t, hang)
			s := script{t, b}
			s.say(&wire.Welcome{Version: wire.MaxVersion, HangTimeout: hang})
			if err := n.join(a); err != nil {
				t.Fatal(err)
			}
			n.start()
			go n.s.Ready()
			receive[*wire.Hello](s)
			receive[*wire.Verified](s)
			receive[*wire.Ready](s)
			s.say(&wire.Ping{Seq: 1}, &wire.Ping{Seq: 2, Final: true})
			time.Sleep(time.Second)
			s.say(&wire.Commit{})
			n.wantOwner(false)
			wantCalls(t, &n.journal, "open own")
		})
	}
}

// TestPredecessorGone has the predecessor die at each step.
func TestPredecessorGone(t *testing.T) {
	t.Run("warming", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			s.link.Close()
			time.Sleep(time.Hour)
			wantCalls(t, &n.journal, "gone")
			n.ready()
			n.wantOwner(true)
			wantCalls(t, &n.journal, "gone open own")
		})
	})
	t.Run("warming, abort", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			s.link.Close()
			synctest.Wait()
			if !n.s.Abort("ill") {
				t.Error("Abort() = false")
			}
			n.wantQuit(failure.Aborted)
			wantCalls(t, &n.journal, "gone shut")
			if n.s.Ready() {
				t.Error("Ready() = true after Abort")
			}
		})
	})
	t.Run("probation", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			n.ready()
			s.link.Close()
			n.wantOwner(true)
			wantCalls(t, &n.journal, "open gone own")
		})
	})
	t.Run("commit waits", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			n.ready()
			s.say(&wire.Ping{Seq: 1, Final: true}, &wire.Commit{})
			s.link.Close()
			n.wantOwner(false) // Following finds out
			wantCalls(t, &n.journal, "open own")
		})
	})
	t.Run("rollback waits", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			n.ready()
			s.say(&wire.Rollback{Text: "operator"})
			s.link.Close()
			if err := n.wantQuit(failure.RolledBack); err.Text != "operator" {
				t.Errorf("Run() = %+v, want the predecessor's words", err)
			}
			wantCalls(t, &n.journal, "open shut")
		})
	})
}

func TestRolledBack(t *testing.T) {
	for _, m := range []wire.Message{
		&wire.Rollback{Text: "late"},
		&wire.Refuse{Reason: failure.Timeout, Text: "late"},
	} {
		for _, ready := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ready=%t", m.Type(), ready), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					n, s := listen(t, nil)
					want := "shut"
					if ready {
						n.ready()
						want = "open shut"
						receive[*wire.Ready](s)
					}
					s.say(m)
					if m := receive[*wire.RolledBack](s); m.Accepted != 7 {
						t.Errorf("RolledBack = %+v", m)
					}
					synctest.Wait()
					if len(n.tenure) > 0 {
						t.Error("the conversation ended before the predecessor closed it")
					}
					s.link.Close()
					if err := n.wantQuit(failure.RolledBack); err.Text != "late" {
						t.Errorf("Run() = %+v, want the predecessor's words", err)
					}
					wantCalls(t, &n.journal, want)
					if n.s.Ready() {
						t.Error("Ready() = true after a rollback")
					}
				})
			})
		}
	}
	t.Run("no predecessor reads", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, nil)
			began := time.Now()
			s.say(&wire.Rollback{})
			n.wantQuit(failure.RolledBack)
			wantTook(t, time.Since(began), hang)
		})
	})
}

func TestAbort(t *testing.T) {
	for _, ready := range []bool{false, true} {
		t.Run(fmt.Sprintf("ready=%t", ready), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, s := listen(t, nil)
				want := "shut"
				if ready {
					n.ready()
					receive[*wire.Ready](s)
					want = "open shut"
				}
				if !n.s.Abort("ill") {
					t.Error("Abort() = false")
				}
				if m := receive[*wire.Abort](s); !strings.Contains(m.Text, "ill") {
					t.Errorf("Abort = %+v", m)
				}
				s.say(&wire.Commit{}) // crossed Abort
				s.link.Close()
				n.wantQuit(failure.Aborted)
				wantCalls(t, &n.journal, want)
			})
		})
	}
}

// TestHealth answers pings with a health check.
func TestHealth(t *testing.T) {
	ill := errors.New("no database")
	tests := []struct {
		name    string
		healthy func(ctx context.Context) error
		after   time.Duration // from the ping to the answer
		want    error
	}{
		{"well", func(context.Context) error { return nil }, 0, nil},
		{"slow", func(context.Context) error { time.Sleep(3 * time.Second); return nil }, 3 * time.Second, nil},
		{"ill", func(context.Context) error { return ill }, 0, ill},
		{"hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 4 * time.Second, context.DeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, s := listen(t, func(s *session.Successor) { s.Healthy = tt.healthy })
				n.ready()
				receive[*wire.Ready](s)
				began := time.Now()
				s.say(&wire.Ping{Seq: 1})
				if tt.want != nil {
					m := receive[*wire.Abort](s)
					wantTook(t, time.Since(began), tt.after)
					if !strings.Contains(m.Text, tt.want.Error()) {
						t.Errorf("Abort = %+v", m)
					}
					s.link.Close()
					if err := n.wantQuit(failure.Aborted); !errors.Is(err, tt.want) {
						t.Errorf("Run() = %v, want %v in it", err, tt.want)
					}
					wantCalls(t, &n.journal, "open shut")
					return
				}
				receive[*wire.Alive](s)
				wantTook(t, time.Since(began), tt.after)
				s.say(&wire.Commit{})
				n.wantOwner(false)
				wantCalls(t, &n.journal, "open own")
			})
		})
	}
	t.Run("rolled back meanwhile", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := listen(t, func(s *session.Successor) {
				s.Healthy = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			})
			n.ready()
			receive[*wire.Ready](s)
			s.say(&wire.Ping{Seq: 1}, &wire.Ping{Seq: 2}, &wire.Rollback{Text: "operator"})
			receive[*wire.RolledBack](s)
			s.link.Close()
			n.wantQuit(failure.RolledBack)
		})
	})
}

// TestGarbledPredecessor has a living predecessor break the protocol: its
// sockets are not ours.
func TestGarbledPredecessor(t *testing.T) {
	for _, ready := range []bool{false, true} {
		t.Run(fmt.Sprintf("ready=%t", ready), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, s := listen(t, nil)
				want := "shut"
				if ready {
					n.ready()
					receive[*wire.Ready](s)
					want = "open shut"
				}
				s.link.(*memLink).garbage(fmt.Errorf("%w: noise", wire.ErrTooLarge))
				receive[*wire.Abort](s)
				n.wantQuit(failure.Protocol)
				wantCalls(t, &n.journal, want)
			})
		})
	}
}

// TestBothSides runs the two against each other.
func TestBothSides(t *testing.T) {
	slow := func(ctx context.Context) error {
		select {
		case <-time.After(3900 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tests := []struct {
		name    string
		to      session.Timeouts
		healthy func(ctx context.Context) error
		play    func(o *oldSide, n *newSide)
		reason  failure.Reason // of the predecessor
		old     string
		new     string
		quit    failure.Reason // of the successor
	}{
		{name: "no probation", old: "pause", new: "open own"},
		{name: "long probation", to: session.Timeouts{Probation: time.Hour}, old: "pause", new: "open own"},
		{name: "slow health check", to: session.Timeouts{Probation: time.Minute}, healthy: slow, old: "pause", new: "open own"},
		{
			name: "health check fails late", to: session.Timeouts{Probation: time.Minute},
			healthy: func() func(context.Context) error {
				n := 0
				return func(context.Context) error {
					if n++; n > 20 {
						return errors.New("ill")
					}
					return nil
				}
			}(),
			reason: failure.Aborted, old: "pause resume", new: "open shut", quit: failure.Aborted,
		},
		{
			name: "health check hangs", to: session.Timeouts{Probation: time.Minute},
			healthy: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			reason:  failure.Aborted, old: "pause resume", new: "open shut", quit: failure.Aborted,
		},
		{
			name: "rollback", to: session.Timeouts{Probation: time.Minute},
			play: func(o *oldSide, _ *newSide) {
				time.Sleep(30 * time.Second)
				o.cancel <- &session.Error{Reason: failure.RolledBack, Text: "operator"}
			},
			reason: failure.RolledBack, old: "pause resume", new: "open shut", quit: failure.RolledBack,
		},
		{
			name: "abort", to: session.Timeouts{Probation: time.Minute},
			play: func(_ *oldSide, n *newSide) {
				time.Sleep(30 * time.Second)
				n.s.Abort("changed my mind")
			},
			reason: failure.Aborted, old: "pause resume", new: "open shut", quit: failure.Aborted,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				tt.to.Hang = hang
				o, n := newOldSide(t, tt.to), newNewSide(t, hang)
				n.joiner.Hello.Via = wire.ViaInherit
				o.items = noFDs(1000)
				o.greet(a)
				if err := n.join(b); err != nil {
					t.Fatal(err)
				}
				if len(n.got.Sockets) != 1000 || n.got.Sockets[999].Socket.Shard != 999 {
					t.Errorf("%d sockets arrived", len(n.got.Sockets))
				}
				n.s.Healthy = tt.healthy
				n.start()
				n.ready()
				if tt.play != nil {
					tt.play(o, n)
				}
				if tt.reason == failure.None {
					res, _ := o.wantCommitted()
					leave(res)
					n.wantOwner(false)
				} else {
					o.wantFailed(tt.reason)
					n.wantQuit(tt.quit)
				}
				wantCalls(t, &o.journal, tt.old)
				wantCalls(t, &n.journal, tt.new)
			})
		})
	}
}
