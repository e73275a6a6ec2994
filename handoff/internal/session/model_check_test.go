package session

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
)

// pAccepts reports whether Accept returns connections in P, if P lives.
func (w world) pAccepts() bool { return w.lp.Gate == lifecycle.Open }

func (w world) sAccepts() bool { return w.ls.Gate == lifecycle.Open }

// serves reports whether one of the two accepts, or the one that owns the sockets has
// been stopped.
func (w world) serves() bool {
	if w.pStops() && w.pFate == alive || w.sStops() && w.sFate == alive {
		return true
	}
	return w.pFate == alive && !w.left && w.pAccepts() || w.sFate == alive && w.sAccepts()
}

// pStops reports whether P has been stopped while it owned the sockets.
func (w world) pStops() bool { return w.lp.Phase == lifecycle.Stopping }

// sStops is pStops for S. A successor that was rolled back ends in the same phase.
func (w world) sStops() bool { return w.ls.Phase == lifecycle.Stopping && w.ls.Owner }

// check returns what is wrong with a state.
func (w world) check() string {
	pKeeps, pGave := w.p.phase == predEnded, w.p.phase == predCommitted
	sOwns, sQuit := w.s.phase == succOwner, w.s.phase == succQuit
	pThere, sThere := w.pFate != dead && !w.left, w.sFate != dead
	switch {
	case w.left && !w.p.phase.terminal():
		return "P is to end, and can't"
	case w.slain:
		return "P killed a successor that had accepted, and was not silent"
	case pThere && sThere && pKeeps && sOwns:
		return "both own the sockets"
	case !w.left && pGave && !sOwns: // dead or not: it has owned them
		return "P gave the sockets to a successor that does not own them"
	case pThere && pKeeps && !w.pAccepts() && !w.pStops():
		return "P kept the sockets and does not accept"
	case pThere && pGave && w.pAccepts():
		return "P gave the sockets away and accepts"
	case pThere && !w.pAccepts() && !w.wasOpen && !w.pStops():
		return "P stopped accepting before S began"
	case sThere && sOwns && !w.sAccepts() && !w.sStops():
		return "S owns the sockets and does not accept"
	case sThere && sQuit && w.sAccepts():
		return "S has quit and accepts"
	case pGave != (w.lp.Phase == lifecycle.Lingering):
		return "P's process lingers without a commit, or does not linger after one"
	case w.p.phase.terminal() == w.lp.Upgrading:
		return "P's process does not know whether an upgrade is under way"
	case sOwns != w.ls.Owner:
		return "S's process does not know whether it owns the sockets"
	case w.joined && sQuit && !w.ls.Done():
		return "S has quit and its process does not end"
	case pThere && !w.closed && w.moved:
		return "S hides sockets of which P has duplicates"
	case w.moved && !sOwns:
		return "S moves, and does not own the sockets"
	}
	return ""
}

// checkSettled returns what is wrong with a state in which nothing is due.
// Choices may be open, and may never be made.
func (w world) checkSettled() string {
	pGave, sQuit := w.p.phase == predCommitted, w.s.phase == succQuit
	pLives, sLives := w.pFate == alive && !w.left, w.sFate == alive
	switch {
	case !pLives && sLives && w.s.phase == succProbation && !((w.sMute || w.p.parting) && w.pFate == hung): // it can't say Took
		return "S is alone and does not own the sockets"
	case pLives && w.sFate == dead && !w.p.phase.terminal():
		return "P waits for a successor that is dead"
	case w.drain && sLives && w.s.phase == succOwner && !w.moved && (w.pFate == dead || w.left || w.closed && !w.s.alone && !w.pMute && !w.sDeaf):
		return "S could move, and does not"
	case w.serves():
		return ""
	case pLives && sLives:
		return "both live and neither accepts"
	case pLives && !pGave:
		return "P is alone and does not accept"
	case sLives && !w.joined, sLives && w.s.phase == succWarming:
		return "" // it has no sockets, or is not ready: its program's turn
	case sLives && !sQuit:
		return "S is alone and does not accept"
	}
	return "" // it was refused, or has refused itself
}

// coverage is what of the machines a search has run through.
type coverage struct {
	states   int
	preds    map[[2]uint8]int // phase and event
	succs    map[[2]uint8]int
	predActs map[predAction]int
	succActs map[succAction]int
}

func newCoverage() *coverage {
	return &coverage{
		preds: make(map[[2]uint8]int), succs: make(map[[2]uint8]int),
		predActs: make(map[predAction]int), succActs: make(map[succAction]int),
	}
}

func (c *coverage) pred(p predPhase, e predEvent) { c.preds[[2]uint8{uint8(p), uint8(e)}]++ }
func (c *coverage) succ(p succPhase, e succEvent) { c.succs[[2]uint8{uint8(p), uint8(e)}]++ }

func (c *coverage) add(o *coverage) {
	c.states += o.states
	for k, n := range o.preds {
		c.preds[k] += n
	}
	for k, n := range o.succs {
		c.succs[k] += n
	}
	for k, n := range o.predActs {
		c.predActs[k] += n
	}
	for k, n := range o.succActs {
		c.succActs[k] += n
	}
}

// TestModel holds every state that can come about against the table of deaths.
func TestModel(t *testing.T) {
	t.Parallel()
	faults := 2
	if testing.Short() {
		faults = 1
	}
	var mu sync.Mutex
	all := newCoverage()
	t.Run("settings", func(t *testing.T) {
		for bits := range 1 << 4 {
			s := setting{child: bits&1 != 0, engine: bits&2 != 0, drain: bits&4 != 0}
			probation := bits&8 != 0
			if s.engine && (s.drain || !s.child) {
				continue // tableflip is for children, and for sockets that are the same
			}
			t.Run(fmt.Sprintf("%+v,probation=%t", s, probation), func(t *testing.T) {
				t.Parallel()
				seen := explore(t, world{
					setting: s, p: predState{probation: probation, child: s.child},
					lp: lifecycle.State{Phase: lifecycle.Serving, Gate: lifecycle.Open, Owner: true, Upgrading: true},
				}, faults)
				t.Logf("%d states", seen.states)
				mu.Lock()
				defer mu.Unlock()
				all.add(seen)
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d states, %d pairs of phase and event of the predecessor, %d of the successor", all.states, len(all.preds), len(all.succs))
	// The model must go everywhere: a figure that falls says that it no longer does.
	if all.states < 15_000*faults {
		t.Errorf("%d states: the model does not move", all.states)
	}
	for a := predTransfer; a <= predHangup; a++ {
		if all.predActs[a] == 0 {
			t.Errorf("the predecessor's action %d is never done", a)
		}
	}
	for a := succOpen; a <= succOwn; a++ {
		if all.succActs[a] == 0 {
			t.Errorf("the successor's action %d is never done", a)
		}
	}
	for e := predHello; e <= predLeave; e++ {
		if want := e != predProtocolError; happened(all.preds, uint8(e)) != want { // none of the two breaks it
			t.Errorf("the predecessor's event %d happens: %t, want %t", e, !want, want)
		}
	}
	for e := succReady; e <= succSilent; e++ {
		if !happened(all.succs, uint8(e)) {
			t.Errorf("the successor's event %d never happens", e)
		}
	}
}

func happened(pairs map[[2]uint8]int, event uint8) bool {
	for pair := range pairs {
		if pair[1] == event {
			return true
		}
	}
	return false
}

// node is a state, and how many faults may still befall it.
type node struct {
	w    world
	left int
}

// explore visits all states from start on and fails the test at the first bad one.
func explore(t *testing.T, start world, faults int) *coverage {
	t.Helper()
	type step struct {
		from node
		by   string
	}
	seen := newCoverage()
	first := node{start, faults}
	from := map[node]step{first: {}}
	idle := make(map[node][]node) // steps between states in which neither serves
	bad := func(n node, what string) {
		t.Helper()
		var path []string
		for at := n; at != first; at = from[at].from {
			path = append([]string{from[at].by}, path...)
		}
		t.Fatalf("%s:\n%+v\nafter: %s", what, n.w, strings.Join(path, ", "))
	}
	for queue := []node{first}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		steps := n.w.steps(seen)
		settled := true
		for _, s := range steps {
			settled = settled && !s.due
		}
		what := n.w.check()
		if what == "" && settled {
			what = n.w.checkSettled()
		}
		if what != "" {
			bad(n, what)
		}
		visit := func(s transition, left int) {
			m := node{s.to, left}
			if _, ok := from[m]; !ok {
				from[m] = step{n, s.name}
				queue = append(queue, m)
			}
		}
		for _, s := range steps {
			visit(s, n.left)
			if !n.w.serves() && !s.to.serves() {
				idle[n] = append(idle[n], node{s.to, n.left})
			}
		}
		if n.left > 0 {
			for _, f := range n.w.faults() {
				visit(f, n.left-1)
			}
		}
	}
	if n, ok := cycle(idle); ok {
		bad(n, "this can go on for ever, and neither accepts")
	}
	seen.states = len(from)
	return seen
}

// cycle returns a node from which edges lead back to it.
func cycle(edges map[node][]node) (node, bool) {
	const open, done = 1, 2
	state := make(map[node]int)
	var visit func(n node) (node, bool)
	visit = func(n node) (node, bool) {
		state[n] = open
		for _, m := range edges[n] {
			switch state[m] {
			case open:
				return m, true
			case done:
				continue
			}
			if at, ok := visit(m); ok {
				return at, true
			}
		}
		state[n] = done
		return node{}, false
	}
	for n := range edges {
		if state[n] == 0 {
			if at, ok := visit(n); ok {
				return at, true
			}
		}
	}
	return node{}, false
}
