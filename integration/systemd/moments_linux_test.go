package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestBadMoments has systemctl do something to a service under load in the middle
// of an upgrade: while its successor starts, and in probation. No request fails, and
// the next upgrade works.
func TestBadMoments(t *testing.T) {
	testenv.Long(t, "handoff.TestStopInUpgrade")
	eachHold(t, testBadMoments)
}

func testBadMoments(t *testing.T, hold string) {
	r := newTestRig(t, "")
	targets := r.held(hold, settings{probation: time.Second})
	c := r.load(targets...)
	// What is done, and whether the upgrade is to go on.
	acts := []struct {
		args []string
		goes bool
	}{
		{[]string{"kill", "--kill-who=main", "--signal=USR2", "app.service"}, true},
		{[]string{"--no-block", "reload", "app.service"}, true},
		{[]string{"daemon-reload"}, true},
		{[]string{"daemon-reexec"}, true},
		{[]string{"--no-block", "try-restart", "app.service"}, false},
		{[]string{"kill", "--kill-who=main", "--signal=TERM", "app.service"}, false},
	}
	version := 1
	for _, moment := range []string{"starting", "probation"} {
		for _, act := range acts {
			name := moment + ": systemctl " + strings.Join(act.args, " ")
			old := r.pid("app.service")
			reloaded := make(chan error, 1)
			r.must(r.version("v" + strconv.Itoa(version+1)))
			if moment == "starting" {
				r.must(r.plan(planWait))
			}
			go func() { reloaded <- r.systemctl(r.ctx, "reload", "app.service") }() // ends with the upgrade
			r.must(until(r.ctx, name, func() (bool, error) {
				kind, err := r.step()
				return moment == "starting" && kind != "" || kind == handoff.EventPaused, err
			}))
			r.must(r.systemctl(r.ctx, act.args...))
			if act.goes {
				r.must(c.further(r.ctx, 2)) // a process serves meanwhile
			}
			r.must(r.plan(""))
			// With systemd's own process goes the connection over which systemctl waits.
			if err := <-reloaded; act.goes && err != nil && act.args[0] != "daemon-reexec" {
				t.Errorf("%s: the reload under way: %v", name, err)
			}
			version++
			r.must(c.answeredBy(r.ctx, "v"+strconv.Itoa(version)))
			r.must(until(r.ctx, name+": another main process", func() (bool, error) {
				pid, err := r.number(r.ctx, "app.service", "MainPID")
				return pid != 0 && pid != old, err
			}))
			// Jobs that systemctl did not wait for.
			r.await("app.service", map[string]string{"ActiveState": "active", "SubState": "running", "Job": ""})
			r.alone("app.service")
			r.must(c.further(r.ctx, 5))
			t.Log(name)
		}
	}
	version++
	if _, err := r.upgrade(r.ctx, "app.service", c, "v"+strconv.Itoa(version)); err != nil {
		t.Error(err)
	}
	r.lossless(c)
	r.silent("app.service", "timed out")
}

// step returns the last event of the upgrade under way, or nothing.
func (r *testRig) step() (handoff.EventKind, error) {
	out, err := r.m.Output(r.ctx, "baton", "status", "--json", appName)
	if err != nil {
		return "", err
	}
	var status handoff.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return "", err
	}
	if status.Upgrade == nil {
		return "", nil
	}
	return status.Upgrade.Kind, nil
}
