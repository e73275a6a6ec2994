package session

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
)

// The model runs both machines and the lifecycles of both processes against each
// other, with a queue of messages in each direction, and visits every state that any
// order of steps, timeouts, requests, stops, deaths and hangs can lead to. The machines
// are the code's own; what their drivers do around them (Join, Released, the order of
// what is sent) is here once more, in short. model_check_test.go says what must hold.
//
// What it takes for granted is what the drivers and the kernel see to: messages
// arrive in order and behind them the end of the stream; a killed process does nothing
// more. A silence may be noted while a message waits, which has just arrived. A process
// that is stopped and wakes up is one that is slow; one that hangs never does
// anything again, and its end of the conversation stays open.
type world struct {
	setting
	p        predState
	s        succState
	lp       lifecycle.State // of P's process
	ls       lifecycle.State
	toS      string // messages on their way, oldest first
	toP      string
	pFate    fate
	sFate    fate
	hello    bool // S has said Hello
	joined   bool // S has all sockets: its machine runs
	sNoticed bool // S has seen the end of the stream
	pNoticed bool
	asked    bool // the operator has asked for a rollback
	left     bool // P's process ends while it is in doubt
	told     bool // tableflip has told P that S owns the sockets
	final    bool // the last Ping that S got was the final one
	closed   bool // P has closed its duplicates of the sockets
	moved    bool // S listens on sockets of its own, and hides those that it was given
	wasOpen  bool // S has accepted at some time
	slain    bool // P has killed S, which was neither silent nor mute and had accepted
	pMute    bool // every send of P fails, for a reason in P's process
	sMute    bool
	pDeaf    bool // every receive of P fails, for a reason in P's process
	sDeaf    bool
	owed     bool // S owns the sockets, and could not say so
}

// setting is what does not change.
type setting struct {
	child  bool // P has started S, and can kill it
	engine bool // tableflip tells P when S owns the sockets
	drain  bool // S moves to sockets of its own
}

type fate uint8

const (
	alive fate = iota
	hung
	dead
)

// One letter for each message.
const (
	msgHello      = 'H'
	msgVerified   = 'v'
	msgReady      = 'r'
	msgAlive      = 'a' // the answer to the final Ping
	msgAliveYet   = 'n' // to another
	msgCommitted  = 'c'
	msgAbort      = 'x'
	msgRolledBack = 'b'
	msgTook       = 't'

	msgTransfer  = 'T' // Welcome, and all that follows
	msgRefuse    = 'F'
	msgPaused    = 'p'
	msgPing      = 'h'
	msgFinalPing = 'g'
	msgCommit    = 'C'
	msgRollback  = 'B'
	msgReleased  = 'R'
)

var predOf = map[rune]predEvent{
	msgVerified: predVerified, msgReady: predReady, msgAlive: predAlive, msgCommitted: predConfirmed,
	msgAbort: predAborted, msgRolledBack: predRolledBack, msgTook: predTook,
}

var succOf = map[rune]succEvent{
	msgPing: succPing, msgFinalPing: succPing, msgCommit: succCommit, msgRollback: succRollback, msgRefuse: succRollback,
}

// stepP feeds an event to P and carries out its actions.
func (w world) stepP(e predEvent, seen *coverage) world {
	var acts []predAction
	seen.pred(w.p.phase, e)
	w.p, acts = w.p.next(e)
	after := w.p
	for _, a := range acts {
		if w.p != after {
			break // as Predecessor.event
		}
		seen.predActs[a]++
		switch a {
		case predTransfer:
			w = w.sendP(msgTransfer, seen)
		case predPause:
			w = w.lifeP(lifecycle.Pause, seen)
			w = w.sendP(msgPaused, seen)
		case predPauseQuietly:
			w = w.lifeP(lifecycle.Pause, seen)
		case predRelease:
			w = w.lifeP(lifecycle.Commit, seen)
			if w.drain { // nothing else comes of it
				w.closed = true
				if !w.pMute { // else the conversation ends
					w.toS += string(msgReleased)
				}
			}
		case predPing:
			w = w.sendP(msgFinalPing, seen)
		case predCommit:
			w = w.sendP(msgCommit, seen)
		case predSendBack:
			w = w.sendP(msgRollback, seen)
		case predResume:
			w = w.lifeP(lifecycle.Resume, seen)
		case predKill:
			w.slain = w.slain || e != predSilent && !w.p.parting && w.sFate == alive && w.wasOpen && !w.sMute
			w.sFate = dead
		}
	}
	switch {
	case w.p.phase == predEnded:
		w = w.lifeP(lifecycle.Fail, seen)
	case w.p.phase == predDoubting && w.lp.Phase == lifecycle.Stopping: // as Predecessor.event
		w = w.stepP(predLeave, seen)
		w.left = true
	}
	return w
}

// sendP is Predecessor.send.
func (w world) sendP(m rune, seen *coverage) world {
	if w.pMute {
		return w.stepP(predUnsent, seen)
	}
	w.toS += string(m)
	return w
}

// sendS is Successor.do for a message. It reports whether that was sent.
func (w world) sendS(m rune, seen *coverage) (world, bool) {
	switch {
	case w.hungUp() || w.p.parting: // EPIPE: the end of the stream says more
		return w, false
	case !w.sMute:
		w.toP += string(m)
	case m == msgReady, m == msgAlive, m == msgAliveYet:
		w = w.stepS(succAbort, seen)
	case m == msgCommitted:
		w.owed = true
	}
	return w, !w.sMute
}

// lifeP feeds an event to the lifecycle of P's process, and carries out what concerns
// the conversation.
func (w world) lifeP(e lifecycle.Event, seen *coverage) world {
	var acts []lifecycle.Action
	w.lp, acts, _ = w.lp.Next(e)
	if slices.Contains(acts, lifecycle.GiveUp) {
		w.asked = true
		w = w.stepP(predCancel, seen)
	}
	return w
}

func (w world) lifeS(e lifecycle.Event, seen *coverage) world {
	var acts []lifecycle.Action
	w.ls, acts, _ = w.ls.Next(e)
	if slices.Contains(acts, lifecycle.Abort) {
		w = w.stepS(succAbort, seen)
	}
	return w
}

func (w world) stepS(e succEvent, seen *coverage) world {
	var acts []succAction
	seen.succ(w.s.phase, e)
	before := w
	w.s, acts = w.s.next(e)
	for _, a := range acts {
		seen.succActs[a]++
		switch a {
		case succOpen:
			w = w.lifeS(lifecycle.Start, seen)
			w.wasOpen = true
		case succShut:
			w = w.lifeS(lifecycle.Leave, seen)
		case succOwn:
			w = w.lifeS(lifecycle.Own, seen)
		case succSendReady:
			w, _ = w.sendS(msgReady, seen)
		case succSendAlive:
			m := msgAliveYet
			if w.final {
				m = msgAlive
			}
			w, _ = w.sendS(m, seen)
		case succSendCommitted:
			w, _ = w.sendS(msgCommitted, seen)
		case succSendAbort:
			w, _ = w.sendS(msgAbort, seen)
		case succSendRolledBack:
			w, _ = w.sendS(msgRolledBack, seen)
		case succSendTook:
			var sent bool
			if w, sent = w.sendS(msgTook, seen); !sent {
				return before // as Successor.event
			}
		}
	}
	if w.s.phase == succQuit {
		w = w.lifeS(lifecycle.Quit, seen)
	}
	return w
}

// A transition leads to another state. One that is due comes if nothing else
// does: a message is read, a timer fires. The others are choices.
type transition struct {
	name string
	to   world
	due  bool
}

// steps returns what can happen next, faults left out.
func (w world) steps(seen *coverage) []transition {
	var ts []transition
	add := func(due bool, name string, to world) {
		if to != w {
			ts = append(ts, transition{name, to, due})
		}
	}
	if w.pFate == alive && !w.left {
		add(false, "P: stop", w.lifeP(lifecycle.Stop, seen))
		if !w.p.phase.terminal() {
			w.stepsOfP(add, seen)
		}
	}
	if w.sFate == alive {
		if w.joined {
			add(false, "S: stop", w.lifeS(lifecycle.Stop, seen))
		}
		switch {
		case w.s.phase == succOwner:
			w.stepsOfMove(add)
		case w.s.phase == succQuit:
		case !w.joined:
			w.stepsOfJoin(add)
		default:
			w.stepsOfS(add, seen)
		}
	}
	return ts
}

type adder func(due bool, name string, to world)

func (w world) stepsOfP(add adder, seen *coverage) {
	switch {
	case w.pDeaf:
		// Until it can read, it does not see the end of the stream either.
		add(true, "P can't read", w.stepP(predUnread, seen))
		if w.sFate == dead && !w.pNoticed {
			n := w
			n.pNoticed = true
			add(true, "P sees the end by the pidfd", n.stepP(predGone, seen))
		}
	case w.toP != "":
		w.mailOfP(add, seen)
	case (w.sFate == dead || w.joined && w.s.phase == succQuit || w.p.parting) && !w.pNoticed:
		n := w
		n.pNoticed = true
		add(true, "P sees the end", n.stepP(predGone, seen))
	}
	if w.p.phase == predProbation {
		// Mail or not: it takes no account of what is on its way.
		add(true, "P: probation over", w.stepP(predProbationOver, seen))
	}
	// A message may arrive at the moment at which a timer fires. Where one waits, or P can't
	// read, no timer has to.
	quiet := w.toP == "" && !w.pDeaf
	switch w.p.phase {
	case predWaiting, predWarming:
		add(false, "P: deadline", w.stepP(predDeadline, seen)) // there may be none
	case predSending:
		add(quiet, "P: no acknowledgement", w.stepP(predSilent, seen))
		add(false, "P: deadline", w.stepP(predDeadline, seen))
	case predProbation, predConfirming, predCommitting, predDoubting, predWithdrawing:
		add(quiet, "P: silence", w.stepP(predSilent, seen))
	}
	if w.p.phase == predProbation && !strings.ContainsRune(w.toS, msgPing) && !strings.ContainsRune(w.toP, msgAliveYet) {
		add(w.pMute, "P asks for a sign of life", w.sendP(msgPing, seen))
	}
	if w.p.phase == predSending {
		add(false, "P: transfer fails", w.stepP(predTransferError, seen))
	}
	if !w.asked {
		n := w
		n.asked = true
		add(false, "P: rollback", n.stepP(predCancel, seen))
	}
	if w.engine && !w.told && w.s.phase == succOwner {
		n := w
		n.told = true
		add(true, "P: engine ready", n.stepP(predEngineReady, seen))
	}
}

// mailOfP has P read a message.
func (w world) mailOfP(add adder, seen *coverage) {
	m := rune(w.toP[0])
	n := w
	n.toP = w.toP[1:]
	name := fmt.Sprintf("P gets %c", m)
	switch m {
	case msgHello:
		add(true, name, n.stepP(predHello, seen))
		r := n.stepP(predNoVersion, seen)
		r.toS += string(msgRefuse)
		add(false, name+", which speaks no version of ours", r)
	case msgAliveYet:
		if n.p.phase != predConfirming { // there it is not the last Ping's
			n = n.stepP(predAlive, seen)
		}
		add(true, name, n)
	default:
		add(true, name, n.stepP(predOf[m], seen))
	}
}

// hungUp reports whether S's end of the conversation will see its end.
func (w world) hungUp() bool { return w.pFate == dead || w.left || w.p.phase == predEnded }

// stepsOfJoin is Joiner.Join in short. A successor that fails here and was
// started by hand may begin a line of its own, which is not in the model.
func (w world) stepsOfJoin(add adder) {
	fail := func(n world) world {
		n.s.phase = succQuit
		if !n.sMute {
			n.toP += string(msgAbort)
		}
		return n
	}
	if !w.hello {
		n := w
		n.hello = true
		if n.sMute {
			n.s.phase = succQuit
		} else {
			n.toP += string(msgHello)
		}
		add(false, "S: hello", n)
		return
	}
	switch {
	case w.sDeaf:
		add(true, "S can't read", fail(w))
	case w.toS != "":
		m := rune(w.toS[0])
		n := w
		n.toS = w.toS[1:]
		name := fmt.Sprintf("S gets %c", m)
		if m != msgTransfer || w.sMute {
			add(true, name, fail(n))
			return
		}
		add(false, name+", and can't use it", fail(n))
		n.joined = true
		n = n.lifeS(lifecycle.Join, nil)
		n.toP += string(msgVerified)
		add(true, name, n)
	case w.hungUp() && !w.sNoticed:
		n := w
		n.sNoticed = true
		add(true, "S sees the end", fail(n))
	default:
		add(true, "S: nothing comes", fail(w))
	}
}

// stepsOfS is Successor.Run.
func (w world) stepsOfS(add adder, seen *coverage) {
	switch {
	case w.sDeaf:
		e := succAbort
		if w.pFate == dead {
			e = succGone // by its pidfd
		}
		add(true, "S can't read", w.stepS(e, seen))
	case w.toS != "":
		m := rune(w.toS[0])
		n := w
		n.toS = w.toS[1:]
		name := fmt.Sprintf("S gets %c", m)
		if m == msgPing || m == msgFinalPing {
			n.final = m == msgFinalPing
		}
		switch e, ok := succOf[m]; {
		case ok:
			add(true, name, n.stepS(e, seen))
		default:
			add(true, name, n)
		}
	case w.hungUp() && !w.sNoticed:
		n := w
		n.sNoticed = true
		if w.pFate == dead || w.left { // otherwise its process runs, and serves
			add(true, "S sees the end", n.stepS(succGone, seen))
		} else {
			add(true, "S sees the end, and P runs", n.stepS(succAbort, seen))
		}
	}
	if !w.sNoticed && w.s.phase == succProbation {
		add(w.toS == "", "S: silence", w.stepS(succSilent, seen))
	}
	if w.s.phase == succWarming {
		add(false, "S: ready", w.stepS(succReady, seen))
	}
	add(false, "S: abort", w.stepS(succAbort, seen))
}

// stepsOfMove is what follows the commit in mode Drain: S moves when P has said
// Released, or has ended.
func (w world) stepsOfMove(add adder) {
	if !w.drain || w.moved {
		return
	}
	n := w
	n.moved = true
	if w.pFate == dead || w.left {
		add(true, "S moves: P has ended", n)
	}
	if w.toS == "" || w.s.alone {
		return // alone, it reads nothing any more
	}
	n.toS = w.toS[1:]
	n.moved = w.toS[0] == msgReleased
	add(true, fmt.Sprintf("S gets %c", w.toS[0]), n)
}

// faults returns the ways in which a process can be killed or hang now.
func (w world) faults() []transition {
	var ts []transition
	if w.pFate != dead {
		n := w
		n.pFate, n.toP = dead, ""
		ts = append(ts, transition{name: "P dies", to: n})
	}
	if w.pFate == alive {
		n := w
		n.pFate = hung
		ts = append(ts, transition{name: "P hangs", to: n})
	}
	if w.sFate != dead {
		n := w
		n.sFate, n.toS = dead, ""
		ts = append(ts, transition{name: "S dies", to: n})
	}
	if w.sFate == alive {
		n := w
		n.sFate = hung
		ts = append(ts, transition{name: "S hangs", to: n})
	}
	for name, fails := range map[string]func(n *world) *bool{
		"sends of P fail":    func(n *world) *bool { return &n.pMute },
		"sends of S fail":    func(n *world) *bool { return &n.sMute },
		"receives of P fail": func(n *world) *bool { return &n.pDeaf },
		"receives of S fail": func(n *world) *bool { return &n.sDeaf },
	} {
		n := w
		*fails(&n) = true
		if n != w {
			ts = append(ts, transition{name: name, to: n})
		}
	}
	return ts
}
