package main

import (
	"context"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// brief are the options of a run of a few seconds.
func brief(t *testing.T, upgrades int) *options {
	return &options{
		upgrades: upgrades, seconds: time.Minute, steady: 500 * time.Millisecond,
		command: self, progress: func(s string) { t.Log(s) },
	}
}

// measured runs a peer, and wants all its upgrades to have happened.
func measured(t *testing.T, name string, upgrades int, on network) *row {
	t.Helper()
	p, err := peerByName(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	r := brief(t, upgrades).run(ctx, p, on)
	if r.Error != "" {
		t.Fatalf("%s: %s", name, r.Error)
	}
	t.Logf("%s: %d requests, %d failed (%v), %s; first answers after %v ms", name, r.Requests, r.Failed, r.ByKind, r.Sample, r.First)
	if r.Upgrades != upgrades || r.Requests == 0 || r.MemoryPeak == 0 || r.MemorySteady == 0 {
		t.Errorf("%s: %d upgrades, %d requests, memory %d and %d, want %d upgrades and no zero",
			name, r.Upgrades, r.Requests, r.MemorySteady, r.MemoryPeak, upgrades)
	}
	for i, e := range r.events {
		if e.First <= e.Trigger || e.Last < e.Trigger {
			t.Errorf("%s, upgrade %d: triggered at %v, first answer at %v, last at %v", name, i+1, e.Trigger, e.First, e.Last)
		}
	}
	return r
}

// TestBaton wants Baton to lose nothing.
func TestBaton(t *testing.T) {
	testenv.Long(t, "handoff/handoffhttp.TestNoRequestLost")
	for _, name := range []string{"baton-inherit", "baton-takeover", "baton-drain"} {
		t.Run(name, func(t *testing.T) {
			if r := measured(t, name, 1, loopback()); r.Failed != 0 {
				t.Errorf("%d of %d requests failed: %v, %s", r.Failed, r.Requests, r.ByClass, r.Sample)
			}
		})
	}
}

// TestControl wants the same clients to see what http.Server.Shutdown does: it
// closes each connection that is kept and idle, and most are.
func TestControl(t *testing.T) {
	testenv.Long(t, "TestEvaluate")
	r := measured(t, "tableflip", 1, loopback())
	if r.ByKind[get.String()] == 0 || r.ByKind[post.String()] == 0 {
		t.Errorf("http.Server.Shutdown: failed requests %v: the clients see nothing", r.ByKind)
	}
}

// TestPeers runs the other libraries.
func TestPeers(t *testing.T) {
	testenv.Long(t, "TestEvaluate")
	for _, name := range []string{"grace", "endless", "overseer", "scalingo"} {
		t.Run(name, func(t *testing.T) { measured(t, name, 1, loopback()) })
	}
}

// TestLink has a round trip.
func TestLink(t *testing.T) {
	testenv.Long(t, "TestEvaluate")
	testenv.Need(t, "netns")
	l := new(lab)
	defer l.end()
	on, err := l.newNetwork(50 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	r := measured(t, "baton-takeover", 1, on)
	if r.Failed != 0 {
		t.Errorf("%d of %d requests failed: %v, %s", r.Failed, r.Requests, r.ByClass, r.Sample)
	}
	if r.Steady.Requests > 0 && r.Steady.P50 < 50 {
		t.Errorf("half of the answers came within %v ms, on a link of 50 ms", r.Steady.P50)
	}
}

// TestNoUpgrade measures a server that ignores the trigger. That must not count as an
// upgrade without a failure.
func TestNoUpgrade(t *testing.T) {
	p, err := peerByName("tableflip")
	if err != nil {
		t.Fatal(err)
	}
	r := new(row)
	records := []record{{Due: 10, Took: 1, Version: 1}, {Due: 30, Took: 1, Version: 1}}
	if err := r.evaluate(records, 0, []event{{Version: 2, Trigger: 20}}); err == nil {
		t.Errorf("%s: an upgrade that did not happen is counted: %+v", p.name, r)
	}
}
