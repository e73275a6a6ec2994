package session

import (
	"fmt"
	"strings"
	"testing"
)

// The model runs both machines against each other, with a queue of messages in
// each direction, and visits every state that any order of steps, deaths,
// timeouts and requests can lead to.
//
// What it takes for granted is what the drivers and the kernel see to: messages
// arrive in order and behind them the end of the stream; a silence is only
// noted where no message waits; a killed process does nothing more.
type world struct {
	p      offer
	s      claim
	toS    string // messages on their way, oldest first
	toP    string
	pDead  bool
	sDead  bool
	pOpen  bool // P accepts
	sOpen  bool
	sHeard bool // S has seen the end of the stream
	pHeard bool
	asked  bool // the operator has asked for a rollback
	left   bool // P's process is about to end
	engine bool // tableflip tells P when S owns the sockets
	told   bool // and has
}

// One letter for each message.
const (
	msgVerified   = 'v'
	msgReady      = 'r'
	msgAlive      = 'a'
	msgCommitted  = 'c'
	msgAbort      = 'x'
	msgRolledBack = 'b'
	msgTook       = 't'

	msgPaused   = 'p'
	msgPing     = 'g'
	msgCommit   = 'C'
	msgRollback = 'B'
)

var offerOf = map[rune]offerEvent{
	msgVerified: offerVerified, msgReady: offerReady, msgAlive: offerAlive, msgCommitted: offerConfirmed,
	msgAbort: offerAborted, msgRolledBack: offerRolledBack, msgTook: offerTook,
}

var claimOf = map[rune]claimEvent{msgPing: claimPing, msgCommit: claimCommit, msgRollback: claimRollback}

// stepP feeds an event to P and carries out its actions.
func (w world) stepP(e offerEvent) world {
	var acts []offerAction
	w.p, acts = w.p.next(e)
	for _, a := range acts {
		switch a {
		case offerPause:
			w.pOpen = false
			w.toS += string(msgPaused)
		case offerPauseQuietly, offerRelease:
			w.pOpen = false
		case offerPing:
			w.toS += string(msgPing)
		case offerCommit:
			w.toS += string(msgCommit)
		case offerSendBack:
			w.toS += string(msgRollback)
		case offerResume:
			w.pOpen = true
		case offerKill:
			w.sDead, w.sOpen = true, false
		}
	}
	return w
}

func (w world) stepS(e claimEvent) world {
	var acts []claimAction
	w.s, acts = w.s.next(e)
	for _, a := range acts {
		switch a {
		case claimOpen:
			w.sOpen = true
		case claimShut:
			w.sOpen = false
		case claimSendReady:
			w.toP += string(msgReady)
		case claimSendAlive:
			w.toP += string(msgAlive)
		case claimSendCommitted:
			w.toP += string(msgCommitted)
		case claimSendAbort:
			w.toP += string(msgAbort)
		case claimSendRolledBack:
			w.toP += string(msgRolledBack)
		case claimSendTook:
			w.toP += string(msgTook)
		}
	}
	return w
}

type transition struct {
	name string
	to   world
}

// steps returns what can happen next, deaths left out.
func (w world) steps() []transition {
	var ts []transition
	add := func(name string, to world) { ts = append(ts, transition{name, to}) }
	if !w.pDead && !w.p.phase.terminal() {
		switch {
		case w.toP != "":
			m := rune(w.toP[0])
			n := w
			n.toP = w.toP[1:]
			add(fmt.Sprintf("P gets %c", m), n.stepP(offerOf[m]))
		case w.sDead && !w.pHeard:
			n := w
			n.pHeard = true
			add("P sees the end", n.stepP(offerGone))
		}
		if w.toP == "" { // timers give way to the mail
			switch w.p.phase {
			case offerSending, offerWarming:
				add("P: deadline", w.stepP(offerDeadline))
			case offerProbation:
				add("P: probation over", w.stepP(offerProbationOver))
				add("P: silence", w.stepP(offerSilent))
			case offerConfirming, offerCommitting, offerDoubting, offerWithdrawing:
				add("P: silence", w.stepP(offerSilent))
			}
		}
		if !w.asked {
			n := w
			n.asked = true
			add("P: rollback", n.stepP(offerCancel))
		}
		if w.engine && !w.told && w.s.phase == claimOwner {
			n := w
			n.told = true
			add("P: engine ready", n.stepP(offerEngineReady))
		}
		if w.p.phase == offerDoubting {
			n := w.stepP(offerLeave)
			n.left = true
			add("P: leave", n)
		}
	}
	closed := w.pDead || w.left || w.p.phase == offerEnded
	if !w.sDead && (w.s.phase == claimWarming || w.s.phase == claimProbation) {
		switch {
		case w.toS != "":
			m := rune(w.toS[0])
			n := w
			n.toS = w.toS[1:]
			if e, ok := claimOf[m]; ok {
				n = n.stepS(e)
			}
			add(fmt.Sprintf("S gets %c", m), n)
		case closed && !w.sHeard:
			n := w
			n.sHeard = true
			add("S sees the end", n.stepS(claimGone))
		}
		if w.toS == "" && w.s.phase == claimProbation && !w.s.alone {
			add("S: silence", w.stepS(claimSilent))
		}
		if w.s.phase == claimWarming {
			add("S: ready", w.stepS(claimReady))
		}
		add("S: abort", w.stepS(claimAbort))
	}
	return ts
}

// deaths returns the ways in which a process can be killed now.
func (w world) deaths() []transition {
	var ts []transition
	if !w.pDead {
		n := w
		n.pDead, n.pOpen, n.toP = true, false, ""
		ts = append(ts, transition{"P dies", n})
	}
	if !w.sDead {
		n := w
		n.sDead, n.sOpen, n.toS = true, false, ""
		ts = append(ts, transition{"S dies", n})
	}
	return ts
}

// check returns what is wrong with a state; settled says that nothing can
// happen in it any more but a death.
func (w world) check(settled bool) string {
	w.pDead = w.pDead || w.left
	pKeeps, pGave := w.p.phase == offerEnded, w.p.phase == offerCommitted
	sOwns, sQuit := w.s.phase == claimOwner, w.s.phase == claimQuit
	switch {
	case !w.pDead && !w.sDead && pKeeps && sOwns:
		return "both own the sockets"
	case !w.pDead && pKeeps && !w.pOpen:
		return "P kept the sockets and does not accept"
	case !w.pDead && pGave && w.pOpen:
		return "P gave the sockets away and accepts"
	case !w.sDead && sOwns && !w.sOpen:
		return "S owns the sockets and does not accept"
	case !w.sDead && sQuit && w.sOpen:
		return "S has quit and accepts"
	}
	if !settled {
		return ""
	}
	switch {
	case !w.pDead && !w.sDead && !w.pOpen && !w.sOpen:
		return "both live and nobody accepts"
	case !w.pDead && !w.sDead && pGave && !sOwns:
		return "P gave the sockets to a successor that does not own them"
	case !w.pDead && w.sDead && !w.pOpen && !pGave:
		return "P is alone and does not accept"
	case w.pDead && !w.sDead && !w.sOpen && !sQuit:
		return "S is alone and does not accept"
	}
	return ""
}

func TestModel(t *testing.T) {
	t.Parallel()
	for _, probation := range []bool{true, false} {
		for _, child := range []bool{true, false} {
			for run := range 6 {
				deaths, engine := run%3, run >= 3
				t.Run(fmt.Sprintf("probation=%t,child=%t,engine=%t,deaths=%d", probation, child, engine, deaths), func(t *testing.T) {
					t.Parallel()
					n := explore(t, world{
						p:      offer{phase: offerSending, probation: probation, child: child},
						toP:    string(msgVerified),
						pOpen:  true,
						engine: engine,
					}, deaths)
					t.Logf("%d states", n)
					if n < 50 {
						t.Errorf("explore() visited %d states: the model does not move", n)
					}
				})
			}
		}
	}
}

// explore visits all states from start on and fails the test at the first bad one.
func explore(t *testing.T, start world, deaths int) int {
	t.Helper()
	type node struct {
		w    world
		left int
	}
	from := map[node]struct {
		node
		by string
	}{}
	first := node{start, deaths}
	seen := map[node]bool{first: true}
	for queue := []node{first}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		steps := n.w.steps()
		if bad := n.w.check(len(steps) == 0); bad != "" {
			var path []string
			for at := n; at != first; at = from[at].node {
				path = append([]string{from[at].by}, path...)
			}
			t.Fatalf("%s:\n%+v\nafter: %s", bad, n.w, strings.Join(path, ", "))
		}
		next := make([]node, 0, len(steps)+2)
		names := make([]string, 0, len(steps)+2)
		for _, s := range steps {
			next, names = append(next, node{s.to, n.left}), append(names, s.name)
		}
		if n.left > 0 {
			for _, d := range n.w.deaths() {
				next, names = append(next, node{d.to, n.left - 1}), append(names, d.name)
			}
		}
		for i, m := range next {
			if !seen[m] {
				seen[m] = true
				from[m] = struct {
					node
					by string
				}{n, names[i]}
				queue = append(queue, m)
			}
		}
	}
	return len(seen)
}
