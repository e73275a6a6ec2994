package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// short are the options of a run of a few seconds.
func short(t *testing.T, mode handoff.Mode) options {
	return options{
		restarts: 4, seed: 1, modes: []handoff.Mode{mode}, quick: true, faulty: 0.5, hand: defaultHand, pause: defaultPause,
		artifacts: t.TempDir(), progress: func(s string) { t.Log(s) },
	}
}

const patience = 5 * time.Minute

// drives does a run and wants nothing to be lost.
func drives(t *testing.T, o options) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.limit(patience))
	defer cancel()
	res, err := drive(ctx, o, commandOf(t))
	if err != nil {
		t.Errorf("seed %d: %v", o.seed, err)
	}
	for _, m := range res.Modes {
		for _, f := range m.Findings {
			t.Error(f)
		}
		if m.Account != "" {
			for _, name := range []string{"story", "log"} {
				b, err := os.ReadFile(filepath.Join(m.Account, name))
				t.Logf("%s: %v\n%s", name, err, b)
			}
		}
	}
	t.Log(res.line())
	if res.Upgrades < o.restarts || res.Lost != 0 {
		t.Errorf("%d upgrades, %d requests lost, want %d upgrades and nothing lost", res.Upgrades, res.Lost, o.restarts)
	}
	for _, k := range kinds() {
		if k.near > 0 && res.Modes[0].Kinds[k.name][served] == 0 {
			t.Errorf("no request of kind %q was served", k.name)
		}
	}
	return res
}

// TestGauntlet is a short form of what make gauntlet does.
func TestGauntlet(t *testing.T) {
	testenv.Long(t, "handoff/handoffhttp.TestNoRequestLost")
	for _, mode := range modes() {
		t.Run(string(mode), func(t *testing.T) { drives(t, short(t, mode)) })
	}
}

// TestKilledByHand has predecessors die at each step under successors that were
// started by hand: one that has no socket yet becomes the first of its line.
func TestKilledByHand(t *testing.T) {
	testenv.Long(t, "handoff.TestPredecessorKilled")
	o := short(t, handoff.Takeover)
	o.faulty, o.hand, o.only = 1, 1, "kill predecessor"
	drives(t, o)
}

// TestSystemCallFails has a system call of either side fail in each upgrade.
func TestSystemCallFails(t *testing.T) {
	testenv.Long(t, "handoff.TestSystemCallsShort")
	o := short(t, handoff.Takeover)
	o.restarts, o.faulty, o.filtered, o.only = 12, 1, 1, "system call"
	if res := drives(t, o); res.Faults == 0 {
		t.Error("no system call failed: the test shows nothing")
	}
}

// TestFarClients has clients behind a link with a delay as well, where a
// handshake takes as long as in the world.
func TestFarClients(t *testing.T) {
	testenv.Long(t, "handoff/handoffhttp.TestDelayedLink")
	testenv.Need(t, "netns")
	o := short(t, handoff.Takeover)
	o.restarts, o.faulty, o.link = 2, 0, 50*time.Millisecond
	drives(t, o)
}

// TestClockSteps has the clock on the wall jump by a day and back, at each step
// of an upgrade: nothing that Baton waits for, or cuts, goes by it.
func TestClockSteps(t *testing.T) {
	testenv.Long(t, "handoff.TestUpgradeAllNetworks")
	testenv.Need(t, "own_clock")
	for _, mode := range modes() {
		t.Run(string(mode), func(t *testing.T) {
			o := short(t, mode)
			o.restarts, o.faulty, o.clock, o.only = 6, 1, true, "clock step"
			o.slow = 10 // such a machine is an emulated one
			if res := drives(t, o); res.Faults == 0 {
				t.Error("the clock was never stepped")
			}
		})
	}
}

// TestControl has the service do what http.Server.Shutdown does: the same clients
// and the same ledgers have to find that requests are lost.
func TestControl(t *testing.T) {
	testenv.Long(t, "TestJudge")
	o := short(t, handoff.Takeover)
	o.restarts, o.faulty, o.shutdown = 10, 0, true
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := drive(ctx, o, commandOf(t))
	if !errors.Is(err, errFound) || res.Lost == 0 {
		t.Errorf("http.Server.Shutdown: %d of %d requests lost, %v: the gauntlet proves nothing", res.Lost, res.Requests, err)
	}
	for name, k := range res.Modes[0].Kinds {
		if k[lost] > 0 {
			t.Logf("%s: %d lost", name, k[lost])
		}
	}
	if m := res.Modes[0]; m.Account == "" {
		t.Error("no account of the failure")
	} else {
		for _, name := range []string{"story", "log", "sockets"} {
			if fi, err := os.Stat(filepath.Join(m.Account, name)); err != nil || fi.Size() == 0 {
				t.Errorf("account: %s: %v", name, err)
			}
		}
	}
}
