package handoff

import (
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// state is what a process knows of its own place in the line. It belongs to the
// goroutine of its owner: others ask for it, or post events.
type state struct {
	life       lifecycle.State
	generation uint64
	err        error              // why Done was closed
	upgrade    *upgrade           // the one that is under way, or nil
	lingering  *session.Lingering // the conversation with the committed successor, or nil
	replaced   *Report            // of the upgrade that replaced this process, or nil
	lingerEnd  time.Time          // zero: there is no limit
	event      *Event             // the last one with a report
	elsewhere  string             // a warning of sockets of another network namespace, or empty
	lost       string             // why the control socket has no path, or empty
	left       []sockets.LeftOut  // of the predecessor's, from Ready on
	warnings   []string           // for its report, likewise
	astray     []string           // likewise: of unix listeners that no path leads to
}

// An owner is the goroutine that has the state of an Upgrader. It runs one request
// at a time, and none that blocks.
type owner struct {
	state    state
	requests chan func(*state)
	quit     chan struct{} // closed when no request changes the state any more
	ended    chan struct{} // closed when the goroutine has ended
}

func newOwner() *owner {
	o := &owner{requests: make(chan func(*state)), quit: make(chan struct{}), ended: make(chan struct{})}
	go o.run() // ends with quit; stop waits for it
	return o
}

func (o *owner) run() {
	defer close(o.ended)
	for {
		select {
		case f := <-o.requests:
			f(&o.state)
		case <-o.quit:
			return
		}
	}
}

// ask runs f with the state. Once the owner has ended the state is final: each f gets a
// copy of its own, because several run at the same time.
func (o *owner) ask(f func(*state)) {
	done := make(chan struct{})
	select {
	case o.requests <- func(s *state) { defer close(done); f(s) }:
		<-done
	case <-o.ended:
		final := o.state
		f(&final)
	}
}

// stop ends the goroutine.
func (o *owner) stop() {
	close(o.quit)
	<-o.ended
}

// life returns where the process stands.
func (u *Upgrader) life() (life lifecycle.State) {
	u.owner.ask(func(s *state) { life = s.life })
	return life
}

// An event is what happens to this process, and why.
type event struct {
	kind   lifecycle.Event
	reason string // in words
	err    error  // what Err returns if the event ends the process
}

// post has an event happen. The owner carries out the actions that can't block, and
// post returns all: Abort and CutOff are the caller's. It returns an error where the
// event is refused.
func (u *Upgrader) post(e event) (acts actions, err error) {
	u.owner.ask(func(s *state) { acts, err = u.step(s, e) })
	return acts, err
}

// actions are those that an event leads to.
type actions []lifecycle.Action

func (as actions) has(a lifecycle.Action) bool { return slices.Contains(as, a) }

// step is post in the owner's goroutine.
func (u *Upgrader) step(s *state, e event) (acts actions, err error) {
	s.life, acts, err = s.life.Next(e.kind)
	for _, a := range acts {
		switch a {
		case lifecycle.OpenGate:
			u.table.Open()
		case lifecycle.PauseGate:
			u.table.Pause()
		case lifecycle.ShutGate:
			u.table.Ending.Store(s.life.Phase == lifecycle.Stopping) // before the program closes sockets because of it
			u.table.Shut()
		case lifecycle.GiveUp:
			s.upgrade.giveUp(&session.Error{Reason: failure.RolledBack, Text: e.reason, Err: failure.Closed})
		case lifecycle.CloseDone:
			s.err = e.err
			close(u.done)
		case lifecycle.StartLinger:
			if u.cfg.LingerTimeout > 0 {
				s.lingerEnd = time.Now().Add(u.cfg.LingerTimeout)
			}
		case lifecycle.CutOff:
			close(u.expired)
		case lifecycle.Abort: // it waits for the conversation
		}
	}
	return acts, err
}
