package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// ends are what systemd says when it takes a service for ended.
func ends() []string {
	return []string{"Main process exited", "Deactivated successfully", "Stopped", "Scheduled restart", "Failed with result"}
}

// plain is a service with a socket of its own for each protocol.
func plain(s settings) (settings, []load.Target) {
	s.mode = handoff.Takeover
	s.listen = []address{
		{proto: protoHTTP, network: "tcp", address: webAddress},
		{proto: protoLines, network: "tcp", address: lineAddress},
	}
	if s.probation == 0 {
		s.probation = 50 * time.Millisecond
	}
	return s, []load.Target{
		{Name: "once", Kind: load.Once, Network: "tcp", Address: lineAddress, Workers: 2},
		{Name: "keep", Kind: load.Keep, Network: "tcp", Address: lineAddress, Workers: 2},
		{Name: "http", Kind: load.HTTP, Network: "tcp", Address: webAddress, Workers: 2},
		{Name: "post", Kind: load.Post, Network: "tcp", Address: webAddress, Workers: 2},
	}
}

// TestReload upgrades a service through systemctl reload under load, and once to a
// version that fails. Then it stops the service, with a connection open.
func TestReload(t *testing.T) {
	testenv.Long(t, "handoff.TestSystemdMessages")
	r := newTestRig(t, "")
	set, targets := plain(settings{})
	r.must(r.install(r.ctx, set, "app.service"))
	r.must(r.start(r.ctx, "app.service"))
	r.reloads(t, targets, func(c *clients) {
		// One that can't start.
		before := r.pid("app.service")
		r.must(r.plan(planExit))
		err := r.systemctl(r.ctx, "reload", "app.service")
		if err == nil || !strings.Contains(err.Error(), "Job for app.service failed") {
			t.Errorf("systemctl reload = %v, want a failure", err)
		}
		r.must(r.plan(""))
		r.says("app.service", reason, "Reload failed for")
		if pid := r.pid("app.service"); pid != before {
			t.Errorf("after an upgrade that failed the main process is %d, want %d still", pid, before)
		}
		status, err := r.show(r.ctx, "app.service", "StatusText", "ActiveState")
		r.must(err)
		if status["ActiveState"] != "active" || !strings.Contains(status["StatusText"], "upgrade failed") {
			t.Errorf("after an upgrade that failed the service is %v, want active and a status that says so", status)
		}
		r.must(c.further(r.ctx, 5))
	})
	r.stops(t)
}

// reloads upgrades app.service under load, has fail make an upgrade fail, and
// upgrades it again. Nothing is lost.
func (r *testRig) reloads(t *testing.T, targets []load.Target, fail func(*clients)) {
	t.Helper()
	c := r.load(targets...)
	first, err := r.show(r.ctx, "app.service", "InvocationID", "ActiveEnterTimestampMonotonic")
	r.must(err)
	upgrade := func(version string) {
		t.Helper()
		if _, err := r.upgrade(r.ctx, "app.service", c, version); err != nil {
			t.Fatal(err)
		}
	}
	upgrade("v2")
	upgrade("v3")
	fail(c)
	upgrade("v4")
	stats := r.lossless(c)
	if stats.Crossed == 0 || stats.Moved == 0 {
		t.Errorf("%d connections were open across an upgrade, %d moved, want both", stats.Crossed, stats.Moved)
	}
	r.await("app.service", map[string]string{"StatusText": "generation 4, version v4", "SubState": "running"})
	first["NRestarts"] = "0"
	r.want("app.service", first) // it was never down
	r.silent("app.service", ends()...)
}

// stops has app.service stop with a connection open, which is served to its end.
func (r *testRig) stops(t *testing.T) {
	t.Helper()
	c := r.load(load.Target{Name: "open", Kind: load.Keep, Network: "tcp", Address: lineAddress, Workers: 1})
	done := make(chan error, 1)
	go func() { done <- r.systemctl(r.ctx, "stop", "app.service") }() // ends with the service
	// It stops while the connection is open, and waits for its end.
	r.await("app.service", map[string]string{"ActiveState": "deactivating"})
	_, _, err := c.stop(r.ctx)
	r.must(err)
	r.must(<-done)
	// The clients send requests until they are stopped. By then no process serves, but
	// the open connection was served to its end.
	for _, f := range c.failures {
		if f.Class != load.Refused {
			t.Errorf("%s: %s: %s", f.Step, f.Class, f.Error)
		}
	}
	r.want("app.service", map[string]string{"ActiveState": "inactive", "Result": "success", "NRestarts": "0"})
	r.says("app.service", "Deactivated successfully")
}

// TestBarrier halts systemd while an upgrade is committed: the process that is
// replaced must not end before systemd knows by whom.
func TestBarrier(t *testing.T) {
	testenv.Long(t, "handoff.TestSystemdBarrier")
	r := newTestRig(t, "")
	set, _ := plain(settings{})
	r.must(r.install(r.ctx, set, "app.service"))
	r.must(r.start(r.ctx, "app.service"))
	for try := 1; ; try++ {
		old := r.pid("app.service")
		r.must(r.m.Signal(syscall.SIGSTOP))
		began := time.Now()
		_, err := r.m.Output(r.ctx, "baton", "upgrade", appName)
		committed := time.Now()
		// Nothing is open, so nothing but systemd keeps it.
		ctx, cancel := context.WithTimeout(r.ctx, time.Second)
		gone := until(ctx, "end", func() (bool, error) { return !r.alive(old), nil }) == nil
		cancel()
		waited := time.Since(committed)
		r.must(r.m.Signal(syscall.SIGCONT))
		r.must(err)
		// It does not wait for ever. On a machine that is too busy, the second that
		// it was looked at was too late.
		if gone && time.Since(began) > 4*time.Second && try < 5 {
			t.Logf("the upgrade took %v: once more", committed.Sub(began))
			continue
		}
		if gone {
			t.Errorf("process %d ended %v after the commit, while systemd could not know of its successor", old, waited)
		}
		ctx, cancel = context.WithTimeout(r.ctx, patience)
		r.must(until(ctx, "end of the old process", func() (bool, error) { return !r.alive(old), nil }))
		cancel()
		if pid := r.pid("app.service"); pid == old {
			t.Errorf("the main process is %d, which has ended", pid)
		}
		break
	}
	r.want("app.service", map[string]string{"ActiveState": "active", "SubState": "running", "NRestarts": "0"})
	r.silent("app.service", ends()...)
}

// TestInstances upgrades three instances on one port, one after the other.
func TestInstances(t *testing.T) {
	testenv.Long(t, "handoff.TestDrainInstances")
	r := newTestRig(t, "")
	set, targets := plain(settings{})
	set.mode = handoff.Drain
	r.must(r.install(r.ctx, set, "app@.service"))
	var units []string
	for i := range 3 {
		units = append(units, fmt.Sprintf("app@%d.service", i+1))
	}
	r.must(r.systemctl(r.ctx, append([]string{"enable", "--now"}, units...)...))
	c := r.load(targets...)
	r.must(r.version("v2"))
	for _, unit := range units {
		old := r.pid(unit)
		r.must(r.systemctl(r.ctx, "reload", unit))
		if pid := r.pid(unit); pid == old {
			t.Errorf("systemctl reload %s has succeeded, and the main process is still %d", unit, pid)
		}
		r.must(c.further(r.ctx, 5))
	}
	stats := r.lossless(c)
	if n := stats.Targets["once"].Versions["v2"]; n == 0 {
		t.Errorf("v2 has answered no request: %v", stats.Targets["once"].Versions)
	}
	for _, unit := range units {
		r.want(unit, map[string]string{"ActiveState": "active", "NRestarts": "0", "StatusText": "generation 2, version v2"})
		r.silent(unit, ends()...)
	}
}
