package session_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// journal notes which hooks are called, in order.
type journal struct {
	mu    sync.Mutex
	words []string
}

func (j *journal) note(word string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.words = append(j.words, word)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.words, " ")
}

// call returns a hook that notes word.
func (j *journal) call(word string) func() { return func() { j.note(word) } }

var hello = wire.Hello{MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, PID: 2, Build: "new"}

// oldSide is a predecessor that runs.
type oldSide struct {
	*session.Predecessor
	journal
	t      testing.TB
	began  time.Time
	cancel chan *session.Error
	exited chan error
	result chan session.Result
	items  []session.Item
}

func newOldSide(t testing.TB, to session.Timeouts) *oldSide {
	o := &oldSide{
		t:      t,
		cancel: make(chan *session.Error, 1),
		exited: make(chan error, 1),
		result: make(chan session.Result, 1),
	}
	o.Predecessor = &session.Predecessor{
		Timeouts: to,
		Welcome:  wire.Welcome{Generation: 1, PID: 1, Build: "old"},
		Pause:    func() wire.Paused { o.note("pause"); return wire.Paused{Queue: 3, HalfOpen: -1} },
		Resume:   o.call("resume"),
		Manifest: func() ([]session.Item, func()) { return o.items, func() {} },
		Cancel:   o.cancel,
		Exited:   o.exited,
	}
	return o
}

// ownChild makes the successor a child: kill is what killing it does.
func (o *oldSide) ownChild(kill func()) {
	o.Kill = func() {
		o.note("kill")
		kill()
	}
}

// start runs it with a successor that has said Hello on link.
func (o *oldSide) start(link session.Link) {
	arrivals := make(chan session.Arrival, 1)
	arrivals <- session.Arrival{Link: link, Hello: hello}
	o.startWith(arrivals)
}

// greet runs it with the successor that says Hello on link.
func (o *oldSide) greet(link session.Link) {
	arrivals := make(chan session.Arrival, 1)
	o.startWith(arrivals)
	go func() { // ends with Hello
		m, _, err := link.Recv()
		h, ok := m.(*wire.Hello)
		if err != nil || !ok {
			close(arrivals)
			return
		}
		arrivals <- session.Arrival{Link: link, Hello: *h}
	}()
}

func (o *oldSide) startWith(arrivals <-chan session.Arrival) {
	o.began = time.Now()
	go func() { o.result <- o.Run(arrivals) }()
}

// end waits for the end of Run and returns it with the time that it took. A
// conversation that goes on is ended.
func (o *oldSide) end() (session.Result, time.Duration) {
	o.t.Helper()
	select {
	case res := <-o.result:
		return res, time.Since(o.began)
	case <-time.After(48 * time.Hour): // of fake time, as a rule
		o.t.Fatal("Run() has not returned")
	}
	panic("unreachable")
}

// leave ends the linger of a conversation that was committed.
func leave(res session.Result) {
	if l := res.Lingering; l != nil {
		l.Bye(wire.Bye{})
		l.Run()
	}
}

// wantFailed fails the test unless the upgrade failed for reason.
func (o *oldSide) wantFailed(reason failure.Reason) (res session.Result, took time.Duration) {
	o.t.Helper()
	res, took = o.end()
	var err *session.Error
	switch {
	case res.Committed:
		o.t.Errorf("Run() committed, want %v", reason)
		leave(res)
	case !errors.As(res.Err, &err) || err.Reason != reason:
		o.t.Errorf("Run() = %v, want reason %v", res.Err, reason)
	case res.Lingering != nil:
		o.t.Errorf("Run() failed and lingers")
	}
	return res, took
}

func (o *oldSide) wantCommitted() (res session.Result, took time.Duration) {
	o.t.Helper()
	res, took = o.end()
	if !res.Committed || res.Err != nil {
		o.t.Errorf("Run() = %v, want a commit", res.Err)
	}
	return res, took
}

// wantCalls compares the hooks that were called.
func wantCalls(t testing.TB, j *journal, want string) {
	t.Helper()
	if got := j.String(); got != want {
		t.Errorf("hooks called: %q, want %q", got, want)
	}
}

// newSide is a successor.
type newSide struct {
	journal
	t      testing.TB
	joiner session.Joiner
	got    *session.Received
	s      *session.Successor
	tenure chan session.Tenure
}

func newNewSide(t testing.TB, hang time.Duration) *newSide {
	return &newSide{
		t: t,
		joiner: session.Joiner{
			Hello:   hello,
			Check:   func(wire.Socket, int) error { return nil },
			Timeout: hang,
		},
		tenure: make(chan session.Tenure, 1),
	}
}

// join joins the predecessor on link.
func (n *newSide) join(link session.Link) error {
	var err error
	n.got, n.s, err = n.joiner.Join(link)
	if err != nil {
		return err
	}
	n.s.Open, n.s.Shut, n.s.Own, n.s.Gone = n.call("open"), n.call("shut"), n.call("own"), n.call("gone")
	n.s.Accepted = func() uint64 { return 7 }
	return nil
}

func (n *newSide) start() {
	go func() { n.tenure <- n.s.Run() }()
}

func (n *newSide) end() session.Tenure {
	n.t.Helper()
	select {
	case t := <-n.tenure:
		return t
	case <-time.After(48 * time.Hour):
		n.t.Fatal("Run() has not returned")
	}
	panic("unreachable")
}

// wantOwner fails the test unless the successor owns the sockets. It ends the
// conversation.
func (n *newSide) wantOwner(alone bool) {
	n.t.Helper()
	got := n.end()
	if !got.Owner || got.Alone != alone || got.Err != nil || (got.Following == nil) != alone {
		n.t.Errorf("Run() = %+v, want an owner, alone: %t", got, alone)
	}
	if f := got.Following; f != nil {
		f.Stop()
		f.Run()
	}
}

func (n *newSide) wantQuit(reason failure.Reason) *session.Error {
	n.t.Helper()
	got := n.end()
	var err *session.Error
	if got.Owner || got.Following != nil || !errors.As(got.Err, &err) || err.Reason != reason {
		n.t.Errorf("Run() = %+v, want reason %v", got, reason)
		return &session.Error{}
	}
	return err
}

// script is the other side of a conversation, played by a test.
type script struct {
	t    testing.TB
	link session.Link
}

func (s script) say(ms ...wire.Message) {
	s.t.Helper()
	for _, m := range ms {
		if err := s.link.Send(m, nil); err != nil {
			s.t.Errorf("Send(%T) = %v", m, err)
		}
	}
}

// receive returns the next message, which has to be an M.
func receive[M wire.Message](s script) M {
	s.t.Helper()
	m, fds, err := s.link.Recv()
	want, ok := m.(M)
	if err != nil || !ok {
		s.t.Fatalf("Recv() = %T %v, want %T", m, err, want)
	}
	closeAll(s.t, fds)
	return want
}

// heed skips to the next M.
func heed[M wire.Message](s script) M {
	s.t.Helper()
	for {
		m, fds, err := s.link.Recv()
		if err != nil {
			var want M
			s.t.Fatalf("Recv() = %v, want %T", err, want)
		}
		closeAll(s.t, fds)
		if want, ok := m.(M); ok {
			return want
		}
	}
}

// rest returns the types of all messages until the end of the conversation.
func (s script) rest() string {
	var all []string
	for {
		m, fds, err := s.link.Recv()
		if err != nil {
			return strings.Join(all, " ")
		}
		closeAll(s.t, fds)
		all = append(all, fmt.Sprint(m.Type()))
	}
}

// warm plays a successor up to Verified, without sockets.
func (s script) warm() wire.Welcome {
	s.t.Helper()
	w := receive[*wire.Welcome](s)
	s.say(&wire.Verified{})
	return *w
}

// tryOut plays a successor up to Ready.
func (s script) tryOut() {
	s.t.Helper()
	s.warm()
	s.say(&wire.Ready{Conns: []string{"x"}})
	receive[*wire.Paused](s)
}

// confirm plays a successor from probation to the end.
func (s script) confirm() {
	s.t.Helper()
	for {
		m, _, err := s.link.Recv()
		if err != nil {
			s.t.Fatalf("Recv() = %v, want Commit", err)
		}
		switch m := m.(type) {
		case *wire.Ping:
			s.say(&wire.Alive{Seq: m.Seq, Accepted: 7})
		case *wire.Commit:
			s.say(&wire.Committed{Accepted: 7})
			return
		default:
			s.t.Fatalf("Recv() = %T, want Ping or Commit", m)
		}
	}
}

// welcome plays a predecessor up to Verified, without sockets.
func (s script) welcome(hang time.Duration) {
	s.t.Helper()
	receive[*wire.Hello](s)
	s.say(&wire.Welcome{Version: wire.MaxVersion, HangTimeout: hang, Generation: 1})
}

func closeAll(t testing.TB, fds []int) {
	t.Helper()
	if err := fdx.Close(fds...); err != nil {
		t.Error(err)
	}
}
