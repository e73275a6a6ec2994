package main

import (
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

const ms = time.Millisecond

// sample has requests every 10 ms for 6 s, and an upgrade at 3 s: the new version
// answers from 3.1 s on, the old one until 3.2 s on connections that are kept.
func sample() ([]record, []event) {
	var records []record
	for at := time.Duration(0); at < 6000*ms; at += 10 * ms {
		r := record{Due: at, Took: ms, Version: 1, Kind: get}
		if at >= 3200*ms || at >= 3100*ms && at%(20*ms) == 0 {
			r.Version = 2
		}
		if at%(30*ms) == 0 {
			r.Kind = short
		}
		switch {
		case at == 3150*ms:
			r.Version, r.Class, r.Kind = 0, load.Reset, post
		case at == 3170*ms:
			r.Version, r.Class, r.Kind, r.Seen = 0, load.EOF, get, true
		case at == 3300*ms:
			r.Took = 50 * ms
		case at > 3300*ms && at < 3700*ms && r.Kind == short:
			r.Kind = get // no process accepts
		}
		records = append(records, r)
	}
	return records, []event{{Version: 2, Trigger: 3000 * ms}}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	records, events := sample()
	r := &row{}
	if err := r.evaluate(records, 500*ms, events); err != nil {
		t.Fatal(err)
	}
	if r.Requests != 600 || r.Failed != 2 || r.Unseen != 1 || r.ByKind["post"] != 1 || r.ByKind["get"] != 1 || r.ByClass[load.Reset] != 1 || r.ByClass[load.EOF] != 1 {
		t.Errorf("%d of %d failed, %d unseen, %v, %v", r.Failed, r.Requests, r.Unseen, r.ByKind, r.ByClass)
	}
	if r.First[0] != 101 || r.Last[0] != 191 {
		t.Errorf("first answer of the new version after %v ms, last of the old one after %v, want 101 and 191", r.First[0], r.Last[0])
	}
	// From 2.5 s to 3.691 s, and before and after that.
	if got, want := r.Around.Requests, 120-2; got != want {
		t.Errorf("%d requests around the upgrade, want %d", got, want)
	}
	if got, want := r.Steady.Requests, 600-51-120; got != want {
		t.Errorf("%d requests in steady state, want %d", got, want)
	}
	if r.Around.P50 != 1 || r.Around.Max != 50 || r.Steady.Max != 1 || r.Ratio["max"] != 50 {
		t.Errorf("around: %+v, steady: %+v, ratios: %v", r.Around, r.Steady, r.Ratio)
	}
	if r.Gap != 390+50-50 && r.Gap < 350 || r.GapBase != 30 {
		t.Errorf("longest accept gaps %v and %v ms", r.Gap, r.GapBase)
	}
}

// The slowest requests and the failed ones are in the picture, however few dots
// there is room for.
func TestPicture(t *testing.T) {
	t.Parallel()
	var rows []*row
	for _, name := range []string{"tableflip", "baton-takeover"} {
		records, events := sample()
		r := &row{Peer: name, What: name}
		if err := r.evaluate(records, 0, events); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	s := &result{Rows: rows}
	var b strings.Builder
	if err := s.draw(&b); err != nil {
		t.Fatal(err)
	}
	svg := b.String()
	for _, want := range []string{"<svg", "</svg>", "requests failed", "first answer after 101 ms", "http.Server.Shutdown on tableflip", "sans-serif"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	if above, below := strings.Index(svg, "baton-takeover"), strings.Index(svg, "Shutdown on"); above > below {
		t.Error("Baton is not above")
	}
	if len(svg) > 500<<10 {
		t.Errorf("the picture has %d bytes", len(svg))
	}
	if err := (&result{}).draw(&b); err == nil {
		t.Error("a picture of nothing")
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	records, events := sample()
	r := &row{Peer: "tableflip", What: "tableflip", PerSecond: 1234}
	if err := r.evaluate(records, 0, events); err != nil {
		t.Fatal(err)
	}
	s := &result{Rows: []*row{r, {Peer: "caddy", What: "Caddy", Error: "not measured: no such thing\nmore"}}}
	var b strings.Builder
	if err := s.writeTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Loopback", "tableflip", "1234", "Caddy: not measured: no such thing\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := s.writeMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| tableflip | 2 of 600 |", "| 101 |", "| Caddy | – |", "Caddy: not measured: no such thing\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the README's table lacks %q:\n%s", want, b.String())
		}
	}
	if got, want := s.line(), "result: upgrades=0 requests=0 failed=0 peers_failed=2 not_measured=1"; got != want {
		t.Errorf("line() = %q, want %q", got, want)
	}
}
