package session_test

import (
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// noBuffers refuses n messages of type M as a kernel without memory does.
func noBuffers[M wire.Message](n int) func(wire.Message) error {
	return func(m wire.Message) error {
		if _, ok := m.(M); ok && n > 0 {
			n--
			return syscall.ENOBUFS
		}
		return nil
	}
}

// TestPredecessorOwnFailure has system calls of the predecessor fail for longer than they
// are repeated: it gives up in words, and takes no failure of its own for the successor's
// death.
func TestPredecessorOwnFailure(t *testing.T) {
	const timeouts, text = hang, "no buffer space available"
	tests := []struct {
		name   string
		refuse func(wire.Message) error
		play   func(s script)
		calls  string
		ends   bool // without a commit
	}{
		{"Welcome", noBuffers[*wire.Welcome](1), func(script) {}, "", true},
		{"Paused", noBuffers[*wire.Paused](1), func(s script) { s.warm(); s.say(&wire.Ready{}) }, "pause resume", true},
		{"Ping", noBuffers[*wire.Ping](1), func(s script) { s.tryOut() }, "pause resume", true},
		{"Commit", noBuffers[*wire.Commit](1), func(s script) {
			s.tryOut()
			for m := receive[*wire.Ping](s); ; m = receive[*wire.Ping](s) {
				if s.say(&wire.Alive{Seq: m.Seq}); m.Final {
					return
				}
			}
		}, "pause resume", true},
		{"nothing can be read in probation", nil, func(s script) {
			s.tryOut()
			s.link.(*memLink).garbage(syscall.ENOBUFS)
		}, "pause resume", true},
		{"no answer to Commit can be read", nil, func(s script) {
			s.tryOut()
			for {
				m, _, err := s.link.Recv()
				if err != nil {
					s.t.Fatal(err)
				}
				if p, ok := m.(*wire.Ping); ok {
					s.say(&wire.Alive{Seq: p.Seq})
				} else {
					break // Commit
				}
			}
			s.link.(*memLink).garbage(syscall.ENOBUFS)
			time.Sleep(timeouts)
			s.say(&wire.Committed{})
		}, "pause resume pause", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := memPair()
				a.refuse = tt.refuse
				o := newOldSide(t, session.Timeouts{Ready: time.Hour, Probation: 2 * timeouts, Hang: timeouts})
				o.ownChild(func() { t.Error("it was killed") })
				o.start(a)
				s := script{t, b}
				tt.play(s)
				if !tt.ends {
					res, _ := o.wantCommitted()
					wantCalls(t, &o.journal, tt.calls)
					leave(res)
					return
				}
				if m := heed[*wire.Rollback](s); !strings.Contains(m.Text, text) {
					t.Errorf("Rollback %q, want %q", m.Text, text)
				}
				s.say(&wire.Ready{}, &wire.RolledBack{}) // it was ready, or is about to be
				res, _ := o.wantFailed(failure.Transfer)
				if !strings.Contains(res.Err.Error(), text) {
					t.Errorf("Run() = %v, want %q", res.Err, text)
				}
				wantCalls(t, &o.journal, tt.calls)
			})
		})
	}
}

// TestSuccessorOwnFailure does the same on the other side.
func TestSuccessorOwnFailure(t *testing.T) {
	start := func(t *testing.T, refuse func(wire.Message) error, ended <-chan struct{}) (*newSide, script) {
		t.Helper()
		return listen(t, func(s *session.Successor) {
			session.LinkOf(s).(*memLink).refuse = refuse
			s.Ended = ended
		})
	}
	t.Run("gives up", func(t *testing.T) {
		for name, refuse := range map[string]func(wire.Message) error{
			"Ready": noBuffers[*wire.Ready](1), "Alive": noBuffers[*wire.Alive](1), "receive": nil,
		} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					n, s := start(t, refuse, nil)
					n.s.Ready()
					s.say(&wire.Ping{Seq: 1})
					if refuse == nil {
						s.link.(*memLink).garbage(syscall.ENOBUFS)
					}
					if m := heed[*wire.Abort](s); !strings.Contains(m.Text, "no buffer space") {
						t.Errorf("Abort %q", m.Text)
					}
					_ = s.link.Close()
					n.wantQuit(failure.Transfer)
					wantCalls(t, &n.journal, "open shut")
				})
			})
		}
	})
	t.Run("Took", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := start(t, noBuffers[*wire.Took](2), nil)
			n.ready()
			receive[*wire.Ready](s)
			time.Sleep(hang + hang/2)
			wantCalls(t, &n.journal, "open") // the predecessor does not know
			receive[*wire.Took](s)
			n.wantOwner(true)
		})
	})
	t.Run("Committed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			n, s := start(t, noBuffers[*wire.Committed](3), nil)
			n.ready()
			receive[*wire.Ready](s)
			s.say(&wire.Commit{})
			receive[*wire.Committed](s)
			n.wantOwner(false)
		})
	})
	t.Run("the conversation ends", func(t *testing.T) {
		for _, dies := range []bool{false, true} {
			play := func(t *testing.T) {
				ended := make(chan struct{})
				n, s := start(t, nil, ended)
				n.ready()
				_ = s.link.Close()
				synctest.Wait()
				wantCalls(t, &n.journal, "open")
				if dies {
					close(ended)
					n.wantOwner(true)
				} else {
					n.wantQuit(failure.RolledBack)
				}
			}
			t.Run(map[bool]string{false: "its process runs", true: "its process ends"}[dies], func(t *testing.T) { bubble(t, play) })
		}
	})
	t.Run("another process holds the conversation", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			ended := make(chan struct{})
			n, s := start(t, nil, ended)
			n.ready()
			receive[*wire.Ready](s)
			close(ended)
			n.wantOwner(true)
			wantCalls(t, &n.journal, "open gone own")
		})
	})
}
