package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// Timeouts of a conversation.
type Timeouts struct {
	Ready     time.Duration // from the call of Run to Ready; 0 or less means no limit
	Probation time.Duration // from Ready to Commit; 0 or less means none
	Hang      time.Duration // silence after which the peer counts as hung
}

// Trial is what the successor has reported in its probation.
type Trial struct {
	Conns    []string // names under which it takes open connections
	Tells    bool     // it sends Taking
	Accepted uint64   // connections it has accepted
	Warnings []string // for the report of a commit
}

// Predecessor is the predecessor's side, from Hello to Commit. Its hooks are
// called from the goroutine that calls Run; they must not block for long,
// Transfer excepted.
type Predecessor struct {
	Timeouts Timeouts
	// Welcome answers Hello; the version is filled in.
	Welcome wire.Welcome

	// Announced is called with the successor's Ready, before Pause, if it is not nil.
	Announced func(*wire.Ready)
	// Pause stops accepting and reports what is queued. Required.
	Pause func() wire.Paused
	// Resume accepts again. Required.
	Resume func()
	// Manifest borrows the sockets for the transfer; release gives them back.
	// Required.
	Manifest func() (items []Item, release func())
	// States writes the state blobs. It may take until ctx ends.
	States func(ctx context.Context) ([]Blob, error)
	// Process is the pidfd of this process, borrowed, by which the successor sees its
	// end. nil means that there is none.
	Process []int
	// Stderr borrows the descriptors of message Stderr, or is nil.
	Stderr func() []int
	// Kill kills the successor's process. It is nil where another process started it.
	Kill func()
	// Entered is called with each phase as it begins.
	Entered func(Phase)

	// Exited yields how the successor's process ended, if this process started it.
	Exited <-chan error
	// EngineReady is closed when tableflip's child is ready.
	EngineReady <-chan struct{}
	// Cancel yields why to take the sockets back: an error that matches
	// failure.RolledBack. If it matches failure.Closed, this process ends: it does not
	// wait for a successor that has not answered Commit.
	Cancel <-chan *Error

	conv  *conversation
	hello wire.Hello
	peer  <-chan struct{} // Arrival.Ended
	dead  bool            // it is closed
	state predState
	trial Trial
	cause *Error
	ended *Error // how the successor's process ended
	seq   uint64 // of the last Ping
	alive uint64 // of the last Ping that was answered
	quiet *silence

	deadline, trialOver, lastWords <-chan time.Time
	graced, garbled, leaving       bool
	unready                        string
	parted                         bool
}

// Result is how the predecessor's side ended.
type Result struct {
	// Committed says that the successor has the sockets.
	Committed bool
	// Err says why it has not: an *Error.
	Err error
	// Hello is the successor's; zero if it sent none.
	Hello wire.Hello
	// Trial is what the successor reported.
	Trial Trial
	// Parted says that a successor that is not committed has sent Abort or
	// RolledBack: it had closed its sockets by then.
	Parted bool
	// Unready is what the successor's program had asked for when it was rolled back
	// before Ready, in words.
	Unready string
	// Lingering is the conversation after Commit. It is nil if the successor has
	// none.
	Lingering *Lingering
}

// Arrival is a successor that has said Hello.
type Arrival struct {
	Link  Link
	Hello wire.Hello
	// Ended is closed when the process that has sent Hello has ended. It need not be
	// the one that was started, which may be a wrapper. nil means that this can't be
	// seen.
	Ended <-chan struct{}
}

// Run waits for the successor on arrivals (one that this process started needs time;
// a closed channel says that it hung up before Hello), and returns when the
// conversation up to Commit has ended. It owns the arrival's link.
func (p *Predecessor) Run(arrivals <-chan Arrival) Result {
	p.state = predState{probation: p.Timeouts.Probation > 0, child: p.Kill != nil}
	p.quiet = newSilence(p.Timeouts.Hang)
	defer p.quiet.stop()
	if p.Timeouts.Ready > 0 {
		t := time.NewTimer(p.Timeouts.Ready)
		defer t.Stop()
		p.deadline = t.C
	}
	p.enter(PhaseWaiting)
	p.loop(arrivals)
	p.enter(PhaseDone)

	res := Result{Committed: p.state.phase == predCommitted, Hello: p.hello, Trial: p.trial, Parted: p.parted, Unready: p.unready}
	if !res.Committed {
		if p.conv != nil {
			p.conv.close()
		}
		res.Err = p.failed()
		return res
	}
	if p.conv != nil {
		res.Lingering = newLingering(p.conv, p.trial, p.Timeouts.Hang)
	}
	return res
}

func (p *Predecessor) enter(ph Phase) {
	if p.Entered != nil {
		p.Entered(ph)
	}
}

// hungUp is the reason where nothing says more.
const hungUp = "it hung up without a word"

// loop feeds the machine with events until it has ended.
func (p *Predecessor) loop(arrivals <-chan Arrival) {
	for !p.state.phase.terminal() {
		var inbox <-chan incoming
		if p.conv != nil {
			inbox = p.conv.inbox
		}
		select {
		case a, ok := <-arrivals:
			arrivals = nil
			if ok {
				p.greet(a)
				continue
			}
			if p.Exited == nil {
				p.gone(nil, hungUp)
				continue
			}
			// Most likely it has ended; its exit status says more.
			p.lastWords = time.After(p.Timeouts.Hang / quietTicks)
		case in, ok := <-inbox:
			if !ok {
				if p.conv.garbled() && !p.garbled {
					// It may be alive, and would take silence for this process's death.
					p.garbled = true
					p.because(predProtocolError, &Error{Err: p.conv.gone()})
					continue
				}
				p.gone(p.conv.gone(), "the conversation ended")
				continue
			}
			if in.err != nil {
				if p.dead {
					p.gone(in.err, "its process ended")
					continue
				}
				p.quiet.heard() // it is not the successor that is silent
				p.because(predUnread, &Error{Err: in.err})
				continue
			}
			_ = fdx.Close(in.fds...) // a successor sends none
			p.message(in.msg)
		case err := <-p.Exited:
			p.Exited = nil
			p.ended = Ended(err)
			if p.conv == nil {
				p.gone(nil, "")
				continue
			}
			if p.peer != nil {
				continue // a wrapper may end before the process that it has started
			}
			// Its last messages may still be in the socket: the end of the
			// conversation comes behind them.
			p.lastWords = time.After(p.Timeouts.Hang)
		case <-p.peer:
			p.peer, p.dead = nil, true
			p.conv.link.Hangup() // its last messages come first
		case <-p.EngineReady:
			p.EngineReady = nil
			p.awaitReady()
			p.event(predEngineReady)
		case e := <-p.Cancel:
			p.leaving = p.leaving || errors.Is(e, failure.Closed)
			p.because(predCancel, e)
		case <-p.deadline:
			// A process that was stopped finds its timers expired before it has
			// read the messages that came meanwhile: one more tick to read them.
			if !p.graced {
				p.graced = true
				p.deadline = time.After(p.Timeouts.Hang / quietTicks)
				continue
			}
			p.deadline = nil
			p.because(predDeadline, p.notReady())
		case <-p.trialOver:
			p.trialOver = nil
			p.event(predProbationOver)
		case <-p.lastWords:
			p.lastWords = nil
			p.gone(nil, hungUp)
		case <-p.quiet.ticker.C:
			p.tick()
		}
	}
}

// tick pings a successor in probation and counts its silence.
func (p *Predecessor) tick() {
	switch p.state.phase {
	case predProbation:
		p.seq++
		p.send(&wire.Ping{Seq: p.seq})
	case predConfirming, predCommitting, predDoubting, predWithdrawing:
	default:
		p.quiet.heard() // a start may take until the ready timeout
		return
	}
	if p.quiet.tick() {
		p.quiet.heard()
		p.because(predSilent, &Error{Text: fmt.Sprintf("no answer for %v", p.Timeouts.Hang)})
	}
}

// message turns a message into an event.
func (p *Predecessor) message(m wire.Message) {
	switch m := m.(type) {
	case *wire.Verified:
		p.event(predVerified)
		if p.state.phase == predWarming {
			p.enter(PhaseWarming)
		}
	case *wire.Ready:
		p.trial.Conns, p.trial.Tells = m.Conns, m.Tells
		if p.Announced != nil && p.state.phase == predWarming {
			p.Announced(m)
		}
		p.event(predReady)
	case *wire.Alive:
		p.trial.Accepted = m.Accepted
		// One Alive for each Ping, or a flood would hide a hang.
		if m.Seq > p.alive && m.Seq <= p.seq {
			p.alive = m.Seq
			p.quiet.heard()
		}
		if m.Seq == p.seq {
			p.event(predAlive)
		}
	case *wire.Committed:
		p.trial.Accepted, p.trial.Warnings = m.Accepted, m.Warnings
		p.event(predConfirmed)
	case *wire.Abort:
		p.parted = true
		p.because(predAborted, &Error{Text: m.Text})
	case *wire.RolledBack:
		p.parted = true
		p.trial.Accepted, p.unready = m.Accepted, m.Unready
		p.event(predRolledBack)
	case *wire.Took:
		p.event(predTook)
	case *wire.Ack:
		// of a transfer that is over
	default:
		p.because(predProtocolError, &Error{Text: fmt.Sprintf("unexpected %T", m)})
	}
}

// because is event for what may fail the upgrade: err is the reason if it does. The
// first reason stands.
func (p *Predecessor) because(e predEvent, err *Error) {
	next, _ := p.state.next(e)
	if p.cause == nil && (next.reason != p.state.reason || next.killed != p.state.killed) {
		p.cause = err
	}
	p.event(e)
}

// gone notes the end of the conversation. How the process ended, if known, says more.
func (p *Predecessor) gone(err error, text string) {
	e := p.ended
	if e == nil {
		e = &Error{Text: text, Err: err}
	}
	p.because(predGone, e)
}

// event feeds the machine and carries out its actions.
func (p *Predecessor) event(e predEvent) {
	was := p.state.phase
	var acts []predAction
	p.state, acts = p.state.next(e)
	if p.state.phase != was {
		p.quiet.heard()
	}
	after := p.state
	for _, a := range acts {
		if p.do(a); p.state != after {
			break // a message could not be sent, which was an event of its own
		}
	}
	if p.leaving && p.state.phase == predDoubting {
		p.event(predLeave)
	}
}

func (p *Predecessor) do(a predAction) {
	switch a {
	case predTransfer: // greet does it
	case predPause:
		m := p.Pause()
		p.enter(PhaseProbation) // after the pause, which observers rely on
		p.send(&m)
	case predPauseQuietly:
		p.Pause()
	case predStartTrial:
		p.trialOver = time.After(p.Timeouts.Probation)
	case predPing:
		p.seq++
		p.send(&wire.Ping{Seq: p.seq, Final: true})
	case predCommit:
		p.enter(PhaseCommitting)
		p.send(&wire.Commit{})
	case predResume:
		p.Resume()
	case predSendBack:
		p.send(&wire.Rollback{Text: words(p.failed(), failure.RolledBack)})
	case predKill:
		p.Kill()
	case predHangup:
		p.conv.link.Hangup() // the end of the conversation is the next event but for what has come
	case predRelease: // the caller does it, when Run has returned
	}
}

// send sends m with fds, which it borrows. An error of the connection shows as its end,
// behind the successor's last messages, and one of the deadline as silence.
func (p *Predecessor) send(m wire.Message, fds ...int) {
	if p.conv == nil {
		return
	}
	if err := p.conv.link.Send(m, fds); fdpass.Own(err) {
		p.because(predUnsent, &Error{Err: err})
	}
}

// failed says why the upgrade fails.
func (p *Predecessor) failed() *Error {
	e := Error{}
	if p.cause != nil {
		e = *p.cause // it may be the caller's
	}
	// The reason of the call that cancels says more than that of the state.
	if p.state.reason != failure.RolledBack || e.Reason == failure.None {
		e.Reason = p.state.reason
	}
	return &e
}
