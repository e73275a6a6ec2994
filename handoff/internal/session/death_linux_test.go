package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// The steps of a conversation, as a successor plays them. Each goes on where the
// one before stopped.
const (
	afterHello = iota
	inBatches
	beforeVerified
	beforeReady
	afterReady
	inProbation
	afterFinalPing
	afterCommit
	inLinger
	steps
)

var stepNames = [steps]string{"after Hello", "in the batches", "before Verified", "before Ready", "after Ready", "in probation", "after the final ping", "after Commit", "in the linger"}

// silence is after what time a peer counts as hung where a test wants that. The
// steps up to there have to take less, on a busy machine too.
const silence = time.Second

// successorUpTo plays a successor up to a step, for a manifest of three batches.
func (s script) successorUpTo(step int) {
	s.t.Helper()
	receive[*wire.Welcome](s)
	if step >= inBatches {
		s.take(1)
	}
	if step >= beforeVerified {
		s.take(2)
	}
	if step >= beforeReady {
		s.say(&wire.Verified{})
	}
	if step >= afterReady {
		s.say(&wire.Ready{Conns: []string{"x"}, Tells: true})
		receive[*wire.Paused](s)
	}
	if step == inProbation {
		for range 3 {
			s.say(&wire.Alive{Seq: receive[*wire.Ping](s).Seq})
		}
	}
	if step >= afterFinalPing {
		m := receive[*wire.Ping](s)
		for ; !m.Final; m = receive[*wire.Ping](s) {
			s.say(&wire.Alive{Seq: m.Seq})
		}
		if step >= afterCommit {
			s.say(&wire.Alive{Seq: m.Seq})
			receive[*wire.Commit](s)
		}
	}
	if step >= inLinger {
		s.say(&wire.Committed{})
	}
}

// TestSuccessorDies is the first line of the death table: the successor is
// killed, or falls silent, at each step.
func TestSuccessorDies(t *testing.T) {
	t.Parallel()
	const (
		none      = failure.None
		died      = failure.SuccessorDied
		hung      = failure.Hung
		timeout   = failure.Timeout
		never     = "" // the predecessor never stopped serving
		kill      = "kill"
		back      = "pause resume" // it serves again
		backKill  = "pause resume kill"
		killBack  = "pause kill resume"
		committed = "pause"
	)
	type outcome struct {
		reason failure.Reason
		calls  string
		child  string // the same where the successor's process is ours
	}
	table := [steps]struct{ killed, silent outcome }{
		afterHello:     {outcome{died, never, kill}, outcome{hung, never, kill}},
		inBatches:      {outcome{died, never, kill}, outcome{hung, never, kill}},
		beforeVerified: {outcome{died, never, kill}, outcome{timeout, never, kill}},
		beforeReady:    {outcome{died, never, kill}, outcome{timeout, never, kill}},
		afterReady:     {outcome{died, back, back}, outcome{hung, back, backKill}},
		inProbation:    {outcome{died, back, back}, outcome{hung, back, backKill}},
		afterFinalPing: {outcome{died, back, back}, outcome{hung, back, backKill}},
		afterCommit:    {outcome{died, back, back}, outcome{hung, back, killBack}},
		inLinger:       {outcome{none, committed, committed}, outcome{none, committed, committed}},
	}
	for step, row := range table {
		for _, child := range []bool{false, true} {
			for _, silent := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, silent=%t, child=%t", stepNames[step], silent, child), func(t *testing.T) {
					t.Parallel()
					want := row.killed
					to := session.Timeouts{Ready: time.Minute, Probation: time.Minute, Hang: 3 * time.Second}
					if silent {
						want = row.silent
						to.Hang = silence
						if want.reason == timeout {
							to.Ready = silence
						}
					}
					if step >= afterFinalPing {
						to.Probation = 50 * time.Millisecond
					}
					a, b := wirePair(t, to.Hang)
					w := newWitness(t)
					o, s := newOldSide(t, to), script{t, b}
					o.items = w.items(3 * 253)
					calls := want.calls
					if child {
						calls = want.child
						o.ownChild(func() { // a killed process hangs up
							b.Close()
							o.exited <- errors.New("signal: killed")
						})
					}
					o.start(a)
					s.successorUpTo(step)
					doubt := silent && step == afterCommit && !child
					switch {
					case doubt:
						// It serves, and waits for the successor's word or end.
						for o.String() != back {
							select {
							case <-o.result:
								t.Fatal("Run() returned in doubt")
							case <-time.After(time.Millisecond):
							}
						}
						want.reason = died
						b.Close()
					case !silent:
						b.Close()
					}
					if want.reason == none {
						res, _ := o.wantCommitted()
						lingersWith(t, res.Lingering, s, silent, w)
					} else {
						o.wantFailed(want.reason)
					}
					wantCalls(t, &o.journal, calls)
					b.Close()
					w.gone()
				})
			}
		}
	}
	t.Run("before Hello", func(t *testing.T) {
		t.Parallel()
		for _, silent := range []bool{false, true} {
			o := newOldSide(t, session.Timeouts{Ready: 100 * time.Millisecond, Hang: 100 * time.Millisecond})
			o.ownChild(func() {})
			arrivals := make(chan session.Arrival)
			want := timeout
			if !silent {
				close(arrivals)
				want = died
				o.Timeouts.Ready = time.Minute
			}
			o.startWith(arrivals)
			o.wantFailed(want)
			wantCalls(t, &o.journal, kill)
		}
	})
}

// lingersWith moves a connection to a successor that is gone, with which it
// stays with us, or silent, which may take it yet. The linger has an end.
func lingersWith(t *testing.T, l *session.Lingering, s script, silent bool, w *witness) {
	t.Helper()
	if l == nil {
		t.Fatal("no Lingering after a commit")
	}
	done := make(chan struct{})
	go func() {
		l.Run()
		close(done)
	}()
	moved := make(chan error, 1)
	fd := w.dup()
	go func() { moved <- l.Move(context.Background(), "x", nil, fd) }()
	if silent {
		receive[*wire.Conns](s) // sent, and not answered
		l.Tell(wire.Linger{Open: 1})
		l.Bye(wire.Bye{Open: 1})
		l.Bye(wire.Bye{Open: 2}) // to no effect
	}
	switch err := <-moved; {
	case err == nil:
		t.Error("Move() = nil, and the successor did not take the connection")
	case errors.Is(err, failure.InDoubt) != silent:
		t.Errorf("Move() = %v to a successor that is silent: %t", err, silent)
	}
	<-done
	<-l.Gone()
	l.Bye(wire.Bye{})
	l.Bye(wire.Bye{})
	l.Tell(wire.Linger{})
	if err := l.Move(context.Background(), "x", nil, fd); !errors.Is(err, session.ErrGone) {
		t.Errorf("Move() = %v, want ErrGone", err)
	}
}

// predecessorUpTo plays a predecessor up to a step. ready is called where the
// successor is to be ready.
func (s script) predecessorUpTo(step int, items []session.Item, hang time.Duration) {
	s.t.Helper()
	receive[*wire.Hello](s)
	if step == afterHello {
		return
	}
	s.say(&wire.Welcome{Version: wire.MaxVersion, Generation: 1, Sockets: uint32(len(items)), HangTimeout: hang})
	s.give(items, 0, 1)
	if step == inBatches {
		return
	}
	s.give(items, 253, 1)
	if step == beforeVerified {
		return
	}
	s.give(items, 506, 1)
	receive[*wire.Verified](s)
	if step == beforeReady {
		return
	}
	receive[*wire.Ready](s)
	if step == afterReady {
		return
	}
	s.say(&wire.Paused{})
	for i := range uint64(3) {
		s.say(&wire.Ping{Seq: i + 1})
		receive[*wire.Alive](s)
	}
	if step == inProbation {
		return
	}
	s.say(&wire.Ping{Seq: 4, Final: true})
	receive[*wire.Alive](s)
	if step == afterFinalPing {
		return
	}
	s.say(&wire.Commit{})
	if step == afterCommit {
		return
	}
	receive[*wire.Committed](s)
	s.say(&wire.Linger{Open: 3})
}

// TestPredecessorDies is the second line: the predecessor is killed, or falls
// silent, at each step.
func TestPredecessorDies(t *testing.T) {
	t.Parallel()
	type outcome struct {
		join  failure.Reason // why Join fails, if it does
		alone bool
		calls string
	}
	lost := outcome{join: failure.PredecessorDied}
	mute := outcome{join: failure.Hung}
	table := [steps]struct{ killed, silent outcome }{
		afterHello:     {lost, mute},
		inBatches:      {lost, mute},
		beforeVerified: {lost, mute},
		beforeReady:    {outcome{alone: true, calls: "gone open own"}, outcome{alone: true, calls: "open own"}},
		afterReady:     {outcome{alone: true, calls: "open gone own"}, outcome{alone: true, calls: "open own"}},
		inProbation:    {outcome{alone: true, calls: "open gone own"}, outcome{alone: true, calls: "open own"}},
		afterFinalPing: {outcome{alone: true, calls: "open gone own"}, outcome{alone: true, calls: "open own"}},
		afterCommit:    {outcome{calls: "open own"}, outcome{calls: "open own"}},
		inLinger:       {outcome{calls: "open own"}, outcome{calls: "open own"}},
	}
	for step, row := range table {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, silent=%t", stepNames[step], silent), func(t *testing.T) {
				t.Parallel()
				want, hang := row.killed, 10*time.Second
				if silent {
					want, hang = row.silent, silence
				}
				a, b := wirePair(t, hang)
				w := newWitness(t)
				n, s := newNewSide(t, hang), script{t, b}
				items := w.items(3 * 253)
				played := make(chan struct{})
				go func() {
					defer close(played)
					s.predecessorUpTo(step, items, hang)
					if !silent {
						b.Close()
					}
				}()
				err := n.join(a)
				var e *session.Error
				if want.join != failure.None {
					if !errors.As(err, &e) || e.Reason != want.join {
						t.Errorf("Join() = %v, want reason %v", err, want.join)
					}
					<-played
					b.Close()
					w.gone()
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if step == beforeReady && !silent {
					gone := make(chan struct{})
					note := n.s.Gone
					n.s.Gone = func() { note(); close(gone) }
					n.start()
					<-gone
				} else {
					n.start()
				}
				n.ready()
				got := n.end()
				if !got.Owner || got.Alone != want.alone || (got.Following == nil) != want.alone {
					t.Errorf("Run() = %+v, want an owner, alone: %t", got, want.alone)
				}
				<-played
				if f := got.Following; f != nil {
					told := 0
					f.Told = func(wire.Linger) { told++ }
					if silent {
						f.Stop()
					}
					if _, clean := f.Run(); clean {
						t.Error("Following.Run() had a Bye that was never sent")
					}
					if want := 1; step == inLinger && !silent && told != want {
						t.Errorf("told %d times of the linger, want %d", told, want)
					}
				}
				wantCalls(t, &n.journal, want.calls)
				if len(n.got.Sockets) != len(items) {
					t.Errorf("%d sockets, want %d", len(n.got.Sockets), len(items))
				}
				n.got.Close()
				b.Close()
				w.gone()
			})
		}
	}
}
