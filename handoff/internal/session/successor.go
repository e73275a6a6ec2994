package session

import (
	"context"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Successor is the successor's side, from Verified to Commit. Its hooks are
// called from the goroutine of Run, Healthy from one of its own.
type Successor struct {
	// Open lets Accept return connections. Required.
	Open func()
	// Shut stops Accept for good. Required.
	Shut func()
	// Own makes this process the owner: the upgrade is committed, or the
	// predecessor has ended. Required.
	Own func()
	// Gone is called when the predecessor has ended before commit.
	Gone func()
	// Healthy is called before each Alive; an error is an Abort. Its context ends
	// after four fifths of the hang timeout.
	Healthy func(ctx context.Context) error
	// Accepted counts the connections accepted so far.
	Accepted func() uint64
	// Conns are the names under which open connections are taken.
	Conns func() []string
	// Unready says what the program has asked for, if it has not called Ready.
	Unready func() string
	// Announce completes Ready, if it is not nil.
	Announce func(*wire.Ready)
	// Confirm completes Committed, after Own, if it is not nil.
	Confirm func(*wire.Committed)
	// Ended is closed when the predecessor's process has ended. nil means that this
	// can't be seen: then the end of the conversation counts.
	Ended <-chan struct{}

	conv    *conversation
	welcome wire.Welcome
	state   succState
	cause   *Error
	owed    bool // Committed could not be sent yet

	requests chan request
	done     chan struct{}

	probing bool // a health check is running
	pingSeq uint64
	health  chan error
}

type request struct {
	event succEvent
	cause *Error
	reply chan succPhase
}

// Tenure is how the successor's side ended.
type Tenure struct {
	// Owner says that this process owns the sockets.
	Owner bool
	// Alone says that the predecessor had ended by then, or was silent.
	Alone bool
	// Err says why it does not: an *Error.
	Err error
	// Following is the conversation after Commit. It is nil if the predecessor has
	// ended.
	Following *Following
}

func newSuccessor(conv *conversation, w wire.Welcome) *Successor {
	return &Successor{
		conv:     conv,
		welcome:  w,
		requests: make(chan request),
		done:     make(chan struct{}),
		health:   make(chan error, 1),
	}
}

// Ready is called when the program can serve. It reports whether the Accept gate is
// open on its return.
func (s *Successor) Ready() bool {
	ph := s.ask(request{event: succReady})
	return ph == succProbation || ph == succOwner
}

// Abort refuses the upgrade. It reports whether that was still possible.
func (s *Successor) Abort(text string) bool {
	return s.ask(request{event: succAbort, cause: &Error{Reason: failure.Aborted, Text: text}}) == succQuit
}

func (s *Successor) ask(r request) succPhase {
	r.reply = make(chan succPhase, 1)
	select {
	case s.requests <- r:
		return <-r.reply
	case <-s.done:
		return s.state.phase // Run has returned: it is final
	}
}

// Refuse refuses the upgrade in place of Run.
func (s *Successor) Refuse(text string) {
	_ = s.conv.link.Send(&wire.Abort{Text: text}, nil) // the end of the conversation says it too
	s.conv.close()
}

// Run returns when the upgrade is committed or has failed.
func (s *Successor) Run() Tenure {
	defer close(s.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	quiet := newSilence(s.welcome.HangTimeout)
	defer quiet.stop()
	inbox, ended := s.conv.inbox, s.Ended
	var hungUp <-chan time.Time // the conversation has ended, and the process has not
	for s.state.phase == succWarming || s.state.phase == succProbation || s.owed {
		select {
		case in, ok := <-inbox:
			switch {
			case ok && in.err != nil && (s.Ended == nil || ended != nil):
				s.fail(failure.Transfer, "", in.err)
			case ok && in.err == nil:
				quiet.heard()
				s.message(ctx, in)
			case !ok && s.conv.garbled():
				// It may be alive and serve: that is no reason to take the sockets.
				s.fail(failure.Protocol, "", s.conv.gone())
			case s.Ended != nil && ended != nil:
				inbox, hungUp = nil, time.After(s.welcome.HangTimeout)
			default:
				inbox = nil
				s.lost()
			}
		case <-ended:
			ended = nil
			if hungUp == nil {
				s.conv.link.Hangup() // what it has sent comes first
				continue
			}
			s.lost()
		case <-hungUp:
			select {
			case <-ended: // at the same time
				s.lost()
				continue
			default:
			}
			s.owed = false
			s.fail(failure.RolledBack, "the predecessor has ended the conversation, and its process runs", nil)
		case r := <-s.requests:
			if r.event == succReady && s.state.phase == succWarming {
				quiet.heard()
			}
			if r.cause != nil && s.cause == nil {
				s.cause = r.cause
			}
			s.event(r.event)
			r.reply <- s.state.phase
		case err := <-s.health:
			s.probing = false
			if err != nil {
				s.fail(failure.Aborted, "health check", err)
				continue
			}
			s.event(succPing)
		case <-quiet.ticker.C:
			switch {
			case s.owed:
				s.do(succSendCommitted)
			case s.state.phase != succProbation || inbox == nil:
				quiet.heard() // before Ready the predecessor sends nothing
			case quiet.tick(): // in probation it sends Ping at each tick
				s.event(succSilent)
			}
		}
	}
	cancel()
	if s.probing {
		<-s.health // the hook ends with its context
	}
	return s.finish()
}

// fail gives up, if this process does not own the sockets yet.
func (s *Successor) fail(reason failure.Reason, text string, err error) {
	if s.state.phase == succWarming || s.state.phase == succProbation {
		s.cause = &Error{Reason: reason, Text: text, Err: err}
		s.event(succAbort)
	}
}

// lost notes that the predecessor has ended.
func (s *Successor) lost() {
	s.owed = false
	if s.Gone != nil {
		s.Gone()
	}
	s.event(succGone)
}

func (s *Successor) finish() Tenure {
	t := Tenure{Owner: s.state.phase == succOwner, Alone: s.state.alone}
	switch {
	case !t.Owner:
		t.Err = s.cause
		s.partWays()
	case t.Alone:
		s.conv.close()
	default:
		t.Following = newFollowing(s.conv, s.welcome)
	}
	return t
}

// partWays closes the conversation once the predecessor has read the last message: a
// close with unread input resets the connection, and that would cut the message off.
func (s *Successor) partWays() {
	timeout := time.NewTimer(s.welcome.HangTimeout)
	defer timeout.Stop()
	for {
		select {
		case in, ok := <-s.conv.inbox:
			if !ok {
				s.conv.close()
				return
			}
			_ = fdx.Close(in.fds...) // too late for anything
		case <-timeout.C:
			s.conv.close()
			return
		}
	}
}

func (s *Successor) message(ctx context.Context, in incoming) {
	_ = fdx.Close(in.fds...) // none belong here
	switch m := in.msg.(type) {
	case *wire.Ping:
		s.pingSeq = m.Seq
		if s.Healthy == nil {
			s.event(succPing)
			return
		}
		if !s.probing {
			s.probing = true
			go func() { // ends with the hook; Run waits for it
				// One tick less than what the predecessor waits for: Abort names a
				// check that hangs before the predecessor counts this process as hung.
				ctx, cancel := context.WithTimeout(ctx, s.welcome.HangTimeout/quietTicks*(quietTicks-1))
				defer cancel()
				s.health <- s.Healthy(ctx)
			}()
		}
	case *wire.Commit:
		s.event(succCommit)
	case *wire.Rollback:
		s.cause = &Error{Reason: failure.RolledBack, Text: m.Text}
		s.event(succRollback)
	case *wire.Refuse:
		s.cause = &Error{Reason: failure.RolledBack, Text: m.Text}
		s.event(succRollback)
	}
	// Paused, and messages that a newer predecessor may send, are no events.
}

func (s *Successor) event(e succEvent) {
	before := s.state
	var acts []succAction
	s.state, acts = s.state.next(e)
	for _, a := range acts {
		if err := s.do(a); err != nil && a == succSendTook {
			// The predecessor does not know that it has to yield, and may be alive.
			s.state = before
			return
		}
	}
	if e == succAbort {
		s.owed = false // this process ends, and leaves the answer to the end of the conversation
	}
}

// do carries out an action. Its error is that of a message that was not sent.
func (s *Successor) do(a succAction) error {
	var m wire.Message
	switch a {
	case succOpen:
		s.Open()
	case succShut:
		s.Shut()
	case succOwn:
		s.Own()
	case succSendReady:
		r := &wire.Ready{Tells: true}
		if s.Conns != nil {
			r.Conns = s.Conns()
		}
		if s.Announce != nil {
			s.Announce(r)
		}
		m = r
	case succSendAlive:
		m = &wire.Alive{Seq: s.pingSeq, Accepted: s.accepted()}
	case succSendCommitted:
		c := &wire.Committed{Accepted: s.accepted()}
		if s.Confirm != nil {
			s.Confirm(c)
		}
		m = c
	case succSendRolledBack:
		r := &wire.RolledBack{Accepted: s.accepted()}
		if s.Unready != nil {
			r.Unready = s.Unready()
		}
		m = r
	case succSendTook:
		m = &wire.Took{}
	case succSendAbort:
		a := &wire.Abort{}
		if s.cause != nil {
			a.Text = words(s.cause, failure.Aborted)
		}
		m = a
	}
	if m == nil {
		return nil
	}
	err := s.conv.link.Send(m, nil) // a dead predecessor shows in the inbox
	switch own := fdpass.Own(err); a {
	case succSendCommitted:
		s.owed = own // until the predecessor has it, both would own the sockets
	case succSendReady, succSendAlive:
		if own {
			s.fail(failure.Transfer, "", err)
		}
	}
	return err
}

func (s *Successor) accepted() uint64 {
	if s.Accepted == nil {
		return 0
	}
	return s.Accepted()
}
