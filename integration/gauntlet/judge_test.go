package main

import (
	"net"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// failed is the index of a class.
func failed(c load.Class) uint8 { return uint8(slices.Index(classes(), c)) }

func tcpAddr(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }

func TestJudge(t *testing.T) {
	t.Parallel()
	n := number{1, 1}
	const a, b = 100, 200 // processes
	conn := connOf(tcpAddr(1), tcpAddr(2))
	answer := func(pid uint32) entry { return entry{kind: entryServed, pid: pid, number: n, at: 15} }
	held := func(pid uint32, at int64) entry { return entry{kind: entryHeld, pid: pid, conn: conn, at: at} }
	good := func(pid uint32) outcome { return outcome{number: n, pid: pid, conn: conn, start: 10, end: 20} }
	bad := outcome{class: failed(load.Reset), number: n, conn: conn, start: 10, end: 20}
	deadA := judge{deaths: []death{{a, 12}}}
	for _, c := range []struct {
		name    string
		judge   judge
		entries []entry
		outcome outcome
		want    verdict
	}{
		{"answered", judge{}, []entry{held(a, 11), answer(a)}, good(a), served},
		{"answered by no process", judge{}, []entry{held(a, 11)}, good(a), wrong},
		{"answered by another", judge{}, []entry{answer(b)}, good(a), wrong},
		{"answered twice", judge{}, []entry{answer(a), answer(b)}, good(a), twice},
		{"answered twice, not received", deadA, []entry{answer(a), answer(b)}, bad, twice},
		{"reset", judge{}, []entry{held(a, 11)}, bad, lost},
		{"never accepted", judge{}, nil, bad, lost},
		{"answered, not received", judge{}, []entry{answer(a)}, bad, lost},
		{"answered, not received, killed", deadA, []entry{answer(a)}, bad, diedWith},
		{"held by the dead", deadA, []entry{held(a, 11)}, bad, diedWith},
		{"had moved from the dead", deadA, []entry{held(a, 11), held(b, 13)}, bad, lost},
		{"had moved to the dead", deadA, []entry{held(b, 9), held(a, 11)}, bad, diedWith},
		{"killed later", judge{deaths: []death{{a, 21}}}, []entry{held(a, 11)}, bad, lost},
		{"another died", judge{deaths: []death{{b, 12}}}, []entry{held(a, 11)}, bad, lost},
		{"an earlier connection of that address", deadA, []entry{held(b, 2)}, outcome{class: bad.class, number: n, conn: conn, opened: 5, start: 10, end: 20}, inHand},
		{"in its hand", deadA, nil, bad, inHand},
		{"died long before", judge{deaths: []death{{a, 1 - handTime}}}, nil, bad, lost},
		{"not true", deadA, []entry{held(a, 11)}, outcome{class: failed(load.Wrong), number: n, conn: conn, start: 10, end: 20}, wrong},
		{"no process there", judge{outages: []span{{15, 30}}}, nil, bad, unserved},
		{"a process there again", judge{outages: []span{{1, 9}}}, nil, bad, lost},
	} {
		tally, findings := c.judge.settle(c.entries, []outcome{c.outcome})
		if got := tally[c.outcome.kind][c.want]; got != 1 {
			t.Errorf("%s: %v, %v, want %q", c.name, tally, findings, c.want)
		}
	}
}

// A process that is killed has at most one connection of each listener in its
// hand: what else is missing is lost.
func TestJudgeHands(t *testing.T) {
	t.Parallel()
	j := judge{deaths: []death{{100, 12}}}
	var outcomes []outcome
	for i := range uint32(3) {
		outcomes = append(outcomes, outcome{class: failed(load.Reset), number: number{1, i}, start: 10, end: 20})
	}
	tally, _ := j.settle(nil, outcomes)
	if want := map[verdict]uint64{inHand: 1, lost: 2}; !cmp.Equal(tally[0], want) {
		t.Errorf("three requests of one listener: %v, want %v", tally[0], want)
	}
}

// Of the connections that moved to a process that was killed, those that it has not
// noted were in its hand: no more than its predecessor has passed on.
func TestJudgeMoves(t *testing.T) {
	t.Parallel()
	const a, b = 100, 200
	j := judge{deaths: []death{{b, 12}}}
	j.move(a, b, 2)
	j.move(a, b, 3) // a later account
	var entries []entry
	var outcomes []outcome
	for i := range 4 {
		conn := connOf(tcpAddr(i), tcpAddr(9))
		entries = append(entries, entry{kind: entryHeld, pid: a, conn: conn, at: 5})
		if i == 0 {
			entries = append(entries, entry{kind: entryHeld, pid: b, conn: conn, at: 11})
		}
		outcomes = append(outcomes, outcome{class: failed(load.Reset), number: number{1, uint32(i)}, conn: conn, start: 10, end: 20})
	}
	tally, _ := j.settle(entries, outcomes)
	if want := map[verdict]uint64{diedWith: 1, inHand: 2, lost: 1}; !cmp.Equal(tally[0], want) {
		t.Errorf("four connections, three of which had moved: %v, want %v", tally[0], want)
	}
	// One of a library is not among them.
	library := outcome{kind: uint8(slices.IndexFunc(kinds(), func(k kind) bool { return k.library })), class: failed(load.Reset), number: number{1, 9}, conn: outcomes[0].conn, start: 10, end: 20}
	moved := judge{deaths: []death{{b, 12}}}
	moved.move(a, b, 1)
	if tally, _ := moved.settle(entries[:1], []outcome{library}); tally[library.kind][lost] != 1 {
		t.Errorf("a request of a library: %v, want it lost", tally)
	}
	early := judge{deaths: []death{{b, 30}}}
	early.move(a, b, 3)
	if tally, _ := early.settle(entries, outcomes); tally[0][lost] != 4 {
		t.Errorf("killed later: %v, want all lost", tally[0])
	}
}

func TestJudgeUnasked(t *testing.T) {
	t.Parallel()
	var j judge
	m := newModeResult("")
	if lost := m.count(j.settle([]entry{{kind: entryServed, pid: 1, number: number{1, 1}}}, nil)); lost != 1 || m.Lost != 1 || len(m.Findings) != 1 {
		t.Errorf("an answer without a request: %d lost, %q, want one", lost, m.Findings)
	}
}

// A ledger gives back what was put into it.
func TestLedger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	entries := []entry{
		{kind: entryHeld, pid: 1, conn: connOf(tcpAddr(1), tcpAddr(2)), at: 2},
		{kind: entryServed, pid: 1 << 31, number: number{1<<32 - 1, 7}, at: 1 << 60},
	}
	outcomes := []outcome{
		{kind: 3, class: 2, pid: 9, number: number{1, 2}, conn: 3, after: 4, opened: 5, start: 6, end: 7},
		{},
	}
	l, err := openLedger(filepath.Join(dir, "e"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.f.Close()
	for _, e := range entries {
		l.add(e.append(nil))
	}
	l2, err := openLedger(filepath.Join(dir, "o"))
	if err != nil {
		t.Fatal(err)
	}
	defer l2.f.Close()
	for _, o := range outcomes {
		l2.add(o.append(nil))
	}
	got, err := readRecords(filepath.Join(dir, "e"), entrySize, parseEntry)
	if err != nil || !slices.Equal(got, entries) {
		t.Errorf("entries: %+v, %v, want %+v", got, err, entries)
	}
	got2, err := readRecords(filepath.Join(dir, "o"), outcomeSize, parseOutcome)
	if err != nil || !slices.Equal(got2, outcomes) {
		t.Errorf("outcomes: %+v, %v, want %+v", got2, err, outcomes)
	}
	if connOf(tcpAddr(1), tcpAddr(2)) == connOf(tcpAddr(1), tcpAddr(3)) {
		t.Error("connections of one port to two servers are taken for the same")
	}
	l.add([]byte{1})
	if _, err := readRecords(filepath.Join(dir, "e"), entrySize, parseEntry); err == nil {
		t.Error("a record that is cut short was read")
	}
	for _, s := range []string{"", "1", "1.", ".1", "1.2.3", "-1.2", "4294967296.1"} {
		if n, err := parseNumber(s); err == nil {
			t.Errorf("parseNumber(%q) = %v, want an error", s, n)
		}
	}
}

// Each kind of client has something to do, and each listener has a client.
func TestKinds(t *testing.T) {
	t.Parallel()
	used := make(map[string]bool)
	for _, k := range kinds() {
		used[k.listener] = true
		if k.near == 0 {
			t.Errorf("%s: no clients", k.name)
		}
	}
	for _, name := range listeners() {
		if !used[name] {
			t.Errorf("listener %s: no clients", name)
		}
	}
}
