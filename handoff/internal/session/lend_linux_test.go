package session_test

import (
	"errors"
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

// lender is a successor that lends n sockets, which are copies of w.
func lender(t *testing.T, w *witness, n int, join error) (*newSide, script, chan bool) {
	t.Helper()
	var side *newSide
	side, s := listen(t, func(s *session.Successor) {
		s.Lend = func() ([]session.Item, func()) {
			side.note("lend")
			items := make([]session.Item, n)
			for i := range items {
				items[i] = session.Item{Socket: wire.Socket{Kind: wire.KindListener, Bound: "b"}, FD: w.dup()}
			}
			return items, func() { side.note("release") }
		}
		s.Join = func() error {
			side.note("join")
			return join
		}
	})
	ready := make(chan bool, 1)
	go func() { ready <- side.s.Ready() }()
	return side, s, ready
}

func TestLend(t *testing.T) {
	t.Run("taken", func(t *testing.T) {
		t.Parallel()
		w := newWitness(t)
		n, s, ready := lender(t, w, 300, nil)
		for _, want := range []int{253, 47} {
			m := hear[*wire.Lend](s)
			wantCalls(t, &n.journal, "lend") // the kernel gives nothing before the predecessor has them
			if len(m.Entries) != want || m.Entries[0].Bound != "b" {
				t.Errorf("Lend: %d entries, %+v", len(m.Entries), m.Entries[0])
			}
			s.say(&wire.Ack{Seq: m.Seq})
		}
		hear[*wire.Ready](s)
		if !<-ready {
			t.Error("Ready() = false")
		}
		wantCalls(t, &n.journal, "lend release join open")
		s.say(&wire.Commit{})
		hear[*wire.Committed](s)
		n.wantOwner(false)
	})
	t.Run("predecessor dies", func(t *testing.T) {
		t.Parallel()
		n, s, ready := lender(t, newWitness(t), 1, nil)
		hear[*wire.Lend](s)
		_ = s.link.Close()
		n.wantOwner(true)
		if !<-ready {
			t.Error("Ready() = false")
		}
		wantCalls(t, &n.journal, "lend gone release join open own")
	})
	t.Run("predecessor withdraws", func(t *testing.T) {
		t.Parallel()
		n, s, ready := lender(t, newWitness(t), 1, nil)
		hear[*wire.Lend](s)
		s.say(&wire.Rollback{Text: "no"})
		hear[*wire.RolledBack](s)
		_ = s.link.Close()
		n.wantQuit(failure.RolledBack)
		if <-ready {
			t.Error("Ready() = true")
		}
		wantCalls(t, &n.journal, "lend shut release")
	})
	t.Run("can't join", func(t *testing.T) {
		t.Parallel()
		n, s, ready := lender(t, newWitness(t), 1, errors.New("another user"))
		s.say(&wire.Ack{Seq: hear[*wire.Lend](s).Seq})
		if m := hear[*wire.Abort](s); !strings.Contains(m.Text, "another user") {
			t.Errorf("Abort: %q", m.Text)
		}
		_ = s.link.Close()
		n.wantQuit(failure.Aborted)
		if <-ready {
			t.Error("Ready() = true")
		}
		wantCalls(t, &n.journal, "lend release join shut")
	})
}

// TestLendUnanswered lends to a predecessor that is hung: nobody would serve if
// the successor gave up.
func TestLendUnanswered(t *testing.T) {
	w := newWitness(t)
	bubble(t, func(t *testing.T) {
		n, s, ready := lender(t, w, 1, nil)
		hear[*wire.Lend](s)
		hear[*wire.Ready](s)
		hear[*wire.Took](s)
		if !<-ready {
			t.Error("Ready() = false")
		}
		n.wantOwner(true)
		wantCalls(t, &n.journal, "lend release join open own")
	})
}

// TestLentTooLate has a predecessor that was hung wake up: what it was lent it
// can't take, for want of descriptors, and the successor has taken over.
func TestLentTooLate(t *testing.T) {
	t.Parallel()
	a, b := socketpair(t)
	o := newOldSide(t, session.Timeouts{Ready: time.Minute, Probation: time.Minute, Hang: time.Minute})
	w := newWitness(t)
	o.items = w.items(3 * 253) // as successorUpTo has it
	o.start(session.NewWireLink(fdpass.New(a), time.Minute))
	raw, err := fdx.Dup(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fdx.Close(raw)
	s := script{t, session.NewWireLink(fdpass.New(b), time.Minute)}
	s.successorUpTo(beforeReady)
	var words []byte
	words = append(words, frame(0, wire.TypeLend, 3, nil)...) // no descriptor comes
	words = append(words, frame(0, wire.TypeReady, 0, nil)...)
	words = append(words, frame(0, wire.TypeTook, 0, nil)...)
	if _, err := unix.Write(raw, words); err != nil {
		t.Fatal(err)
	}
	res, _ := o.wantCommitted()
	_ = s.link.Close()
	leave(res)
	w.gone()
}

// TestLent has a successor lend in and out of turn.
func TestLent(t *testing.T) {
	cases := []struct {
		name   string
		take   bool  // the predecessor is in mode Drain
		err    error // of its hook
		late   bool  // after Ready
		fds    int
		reason failure.Reason
	}{
		{"taken", true, nil, false, 2, failure.Aborted},
		{"refused", true, errors.New("not reuseport"), false, 2, failure.Transfer},
		{"in another mode", false, nil, false, 2, failure.Protocol},
		{"too late", true, nil, true, 2, failure.Protocol},
		{"descriptors missing", true, nil, false, 1, failure.Protocol},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := wirePair(t, hang)
			o := newOldSide(t, session.Timeouts{Ready: hang, Probation: hang, Hang: hang})
			got := make(chan []int, 1)
			if c.take {
				o.Lent = func(entries []wire.Socket, fds []int) error {
					got <- fds
					if c.err != nil {
						_ = fdx.Close(fds...) // ours
						return c.err
					}
					return nil
				}
			}
			o.start(a)
			s := script{t, b}
			s.warm()
			if c.late {
				s.say(&wire.Ready{})
				hear[*wire.Paused](s)
			}
			w := newWitness(t)
			fds := make([]int, c.fds)
			for i := range fds {
				fds[i] = w.dup()
			}
			if err := b.Send(&wire.Lend{Seq: 1, Entries: make([]wire.Socket, 2)}, fds); err != nil {
				t.Fatal(err)
			}
			if c.reason == failure.Aborted {
				if m := heed[*wire.Ack](s); m.Seq != 1 || m.Taken != 2 {
					t.Errorf("Ack = %+v", m)
				}
				closeAll(t, <-got)
			} else {
				heed[*wire.Rollback](s)
			}
			s.say(&wire.Abort{Text: "the end"})
			res, _ := o.wantFailed(c.reason)
			if !res.Parted {
				t.Error("Result.Parted = false of a successor that has said Abort")
			}
			w.gone()
		})
	}
}
