package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// counted is a count of clients without failures.
func counted() load.Stats {
	s := load.Stats{
		Connections: 12345, LongestGapMS: 12.34, StallMS: 3.21, AnsweredLast: "v3", Crossed: 18, Moved: 15,
		Failures: map[load.Class]uint64{}, Targets: map[string]load.TargetStats{},
	}
	for i, t := range targets(addresses{"a", "b", "c", "d"}, 1) {
		s.Targets[t.Name] = load.TargetStats{Kind: t.Kind, Connections: uint64(1000 * i), AnsweredLast: "v3"}
	}
	return s
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		upgrades int
		change   func(*load.Stats)
		want     []string
	}{
		{"all well", 2, func(*load.Stats) {}, nil},
		{"an upgrade is missing", 1, func(*load.Stats) {}, []string{"1 of 2 upgrades happened"}},
		{"failures", 2, func(s *load.Stats) {
			s.Failed, s.Failures = 3, map[load.Class]uint64{load.EOF: 1, load.Reset: 2}
			s.Samples = []load.Failure{{Seconds: 1.5, Target: "tcp", Class: load.EOF, Step: "read answer", Error: "EOF"}}
		}, []string{"3 of 12345 connections failed: 2 reset, 1 eof", "after 1.50 s: tcp: read answer: eof: EOF"}},
		{"old version", 2, func(s *load.Stats) { s.AnsweredLast = "v2" }, []string{`"v2" answered last, the newest version is v3`}},
		{"old version on one socket", 2, func(s *load.Stats) {
			s.Targets["udp"] = load.TargetStats{AnsweredLast: "v2"}
		}, []string{`"v2" answered last on udp, the newest version is v3`}},
		{"nothing crossed", 2, func(s *load.Stats) { s.Crossed = 0 }, []string{"no connection was open across an upgrade"}},
		{"nothing moved", 2, func(s *load.Stats) { s.Moved = 0 }, []string{"no HTTP connection moved to a successor"}},
		{"nothing at all", 0, func(s *load.Stats) { *s = load.Stats{} }, []string{
			"0 of 2 upgrades happened", "no connection was made", `"" answered last, the newest version is v3`,
			"no connection was open across an upgrade", "no HTTP connection moved to a successor",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := counted()
			c.change(&s)
			m := modeResult{Upgrades: c.upgrades}
			m.count(s)
			m.judge(2, "v3")
			if diff := cmp.Diff(c.want, m.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var res result
	for i, mode := range modes() {
		m := modeResult{Mode: mode, Upgrades: 2 + 10*i}
		m.count(counted())
		m.judge(m.Upgrades, "v3")
		res.add(m)
	}
	var out strings.Builder
	if err := res.writeTable(&out); err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
MODE       UPGRADES   CONNECTIONS   FAILED   LONGEST GAP   ANSWERED LAST
inherit           2        12,345        0       12.3 ms              v3
takeover         12        12,345        0       12.3 ms              v3
drain            22        12,345        0       12.3 ms              v3

OF THESE   TCP    UNIX     UDP    HTTP   HTTP-KEEP   TCP-OPEN   UNIX-OPEN   TCP-MARKED   OPEN ACROSS AN UPGRADE   MOVED
inherit      0   1,000   2,000   3,000       4,000      5,000       6,000        7,000                       18      15
takeover     0   1,000   2,000   3,000       4,000      5,000       6,000        7,000                       18      15
drain        0   1,000   2,000   3,000       4,000      5,000       6,000        7,000                       18      15

Gaps include times in which the clients' process did not run, up to 3.2 ms (inherit), 3.2 ms (takeover), 3.2 ms (drain).
`, "\n")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if got, want := res.line(), "result: upgrades=36 connections=37035 failed=0"; got != want {
		t.Errorf("line = %q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	res := result{OK: true, Problems: []string{}}
	m := modeResult{Mode: handoff.Takeover, Upgrades: 2, Each: []upgradeInfo{{From: "v1", To: "v2", Seconds: 0.5}}, Problems: []string{}}
	m.count(counted())
	m.judge(2, "v3")
	res.add(m)
	var out strings.Builder
	if err := res.writeJSON(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		OK          bool
		Upgrades    int
		Connections uint64
		Failed      *uint64
		Problems    []string
		Modes       []struct {
			Mode         string
			LongestGapMS float64 `json:"longest_gap_ms"`
			AnsweredLast string  `json:"answered_last"`
			Each         []struct{ From, To string }
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if !got.OK || got.Upgrades != 2 || got.Connections != 12345 || got.Failed == nil || *got.Failed != 0 || got.Problems == nil || len(got.Modes) != 1 {
		t.Fatalf("JSON: %s", &out)
	}
	if m := got.Modes[0]; m.Mode != "takeover" || m.LongestGapMS != 12.34 || m.AnsweredLast != "v3" || len(m.Each) != 1 || m.Each[0].To != "v2" {
		t.Errorf("mode: %+v", m)
	}
}

func TestThousands(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
}
