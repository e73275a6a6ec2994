package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// verdict is the result of a request by both ledgers.
type verdict string

const (
	served verdict = "served" // once, by the process that the client names
	// Lost with a process that was killed.
	diedWith verdict = "died with its process"
	inHand   verdict = "in its hand" // taken from the kernel and not noted yet
	unserved verdict = "no process to serve"
	// All below are losses.
	lost    verdict = "lost"
	twice   verdict = "answered twice"
	wrong   verdict = "answered by another than it says"
	unasked verdict = "answered and never asked"
)

func (v verdict) loss() bool {
	return v == lost || v == twice || v == wrong || v == unasked
}

// death is the end of a process by force.
type death struct {
	pid uint32
	at  int64 // not later than its end
}

// span is a time in which no process was there to serve.
type span struct{ from, to int64 }

// A judge knows the deaths and outages of the service.
type judge struct {
	deaths  []death
	outages []span
	moves   map[move]uint64 // connections that went to a successor, by its predecessor's account
	hands   map[hand]bool   // that were used
}

// move is how connections went.
type move struct{ from, to uint32 }

// move notes how many connections a process has passed on. Later accounts of the
// same count all of them again.
func (j *judge) move(from, to uint32, n uint64) {
	if j.moves == nil {
		j.moves = make(map[move]uint64)
	}
	j.moves[move{from, to}] = n
}

// hand is a listener of a process that was killed, as its clients know it.
type hand struct {
	pid      uint32
	listener string
}

// A finding is a request that was not served.
type finding struct {
	outcome
	verdict
	holder uint32   // the process that had it, as far as is known
	by     []uint32 // the processes that note that they answered it
}

func (f finding) String() string {
	kind := "?"
	if names := kinds(); int(f.kind) < len(names) {
		kind = string(names[f.kind].name)
	}
	class := load.Class("ok")
	if !f.ok() {
		class = classes()[f.class]
	}
	return fmt.Sprintf("%s: request %v, %s: %s, from %.3f s to %.3f s; opened at %.3f s, had by process %d, answered by %v, which it says is %d",
		f.verdict, f.number, kind, class, seconds(f.start), seconds(f.end), seconds(f.opened), f.holder, f.by, f.pid)
}

func seconds(at int64) float64 { return float64(at) / 1e9 }

// settle compares ledgers that cover the same requests from begin to end. It
// returns the number of requests by kind and verdict, and those not served.
func (j *judge) settle(entries []entry, outcomes []outcome) (map[uint8]map[verdict]uint64, []finding) {
	answers := make(map[number][]entry)
	holders := make(map[connID][]entry)
	for _, e := range entries {
		switch e.kind {
		case entryServed:
			answers[e.number] = append(answers[e.number], e)
		case entryHeld:
			holders[e.conn] = append(holders[e.conn], e)
		}
	}
	for _, held := range holders {
		slices.SortStableFunc(held, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
		for i := range held[1:] { // what has arrived is in no hand
			if m := (move{held[i].pid, held[i+1].pid}); j.moves[m] > 0 {
				j.moves[m]--
			}
		}
	}
	tally := make(map[uint8]map[verdict]uint64)
	var findings []finding
	asked := make(map[number]bool, len(outcomes))
	note := func(o outcome, v verdict, holder uint32) {
		if tally[o.kind] == nil {
			tally[o.kind] = make(map[verdict]uint64)
		}
		tally[o.kind][v]++
		if v != served {
			f := finding{outcome: o, verdict: v, holder: holder}
			for _, e := range answers[o.number] {
				f.by = append(f.by, e.pid)
			}
			findings = append(findings, f)
		}
	}
	for _, o := range outcomes {
		asked[o.number] = true
		v, holder := j.judge(o, answers[o.number], holders)
		note(o, v, holder)
	}
	for n, es := range answers {
		if !asked[n] {
			note(outcome{number: n, kind: 0xff, start: es[0].at, end: es[0].at}, unasked, es[0].pid)
		}
	}
	return tally, findings
}

// judge says what became of a request, and which process had it.
func (j *judge) judge(o outcome, answers []entry, holders map[connID][]entry) (verdict, uint32) {
	switch {
	case len(answers) > 1:
		return twice, answers[1].pid
	case o.ok() && len(answers) == 1 && answers[0].pid == o.pid:
		return served, o.pid
	case o.ok():
		return wrong, o.pid
	case classes()[o.class] == load.Wrong:
		return wrong, o.pid // no death explains an answer that is not true
	}
	var had uint32
	if len(answers) == 1 {
		had = answers[0].pid
		if j.killed(had, o) {
			return diedWith, had
		}
	}
	for _, id := range []connID{o.conn, o.after} {
		for _, e := range slices.Backward(holders[id]) { // the last that had it, by then
			if id == 0 || e.at > o.end || e.at < o.opened { // or of an earlier one with that address
				continue
			}
			had = cmp.Or(had, e.pid)
			if j.killed(e.pid, o) {
				return diedWith, e.pid
			}
			break
		}
	}
	// A successor that was killed had got as many connections as its predecessor
	// reports, including those that it has not recorded. A library's connections don't
	// move.
	for _, d := range j.deaths {
		if m := (move{had, d.pid}); j.moves[m] > 0 && d.at <= o.end && !kinds()[o.kind].library {
			j.moves[m]--
			return inHand, d.pid
		}
	}
	// A process that has a connection and is not killed must serve it. For a library it
	// is unknown which connection was used.
	if had == 0 || kinds()[o.kind].library {
		for _, s := range j.outages {
			if o.start <= s.to && s.from <= o.end {
				return unserved, had
			}
		}
	}
	if had == 0 {
		for _, d := range j.deaths {
			h := hand{d.pid, kinds()[o.kind].listener}
			if o.start <= d.at+int64(handTime) && d.at <= o.end && !j.hands[h] {
				if j.hands == nil {
					j.hands = make(map[hand]bool)
				}
				j.hands[h] = true
				return inHand, d.pid
			}
		}
	}
	return lost, had
}

// handTime is how much later than we know a process may have died, for what was
// in its hand: a signal is on its way for no longer than that.
const handTime = 1e9

// killed reports whether a process was killed before the end of a request.
func (j *judge) killed(pid uint32, o outcome) bool {
	return slices.ContainsFunc(j.deaths, func(d death) bool { return d.pid == pid && d.at <= o.end })
}
