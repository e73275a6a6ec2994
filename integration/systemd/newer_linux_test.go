package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/integration/internal/machine"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// newerRoot returns a folder with a system whose systemd is newer than 253.
func newerRoot(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "systemd")
	testenv.Long(t, "handoff.TestSystemdMessages")
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	err := machine.NewerRoot(ctx, dir)
	if errors.Is(err, machine.ErrNoNewer) {
		testmain.Skipped()
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "root")
}

// TestNewer does with a newer systemd what this machine's may not have: reloads of
// Type=notify and of notify-reload.
func TestNewer(t *testing.T) {
	root := newerRoot(t)
	boot := func(t *testing.T, units ...string) (*testRig, []load.Target) {
		t.Helper()
		r := newTestRig(t, root)
		t.Logf("systemd %d", r.m.Version)
		if r.m.Version < 254 {
			t.Fatalf("systemd %d is not newer", r.m.Version)
		}
		set, targets := plain(settings{})
		set.listen = append(set.listen, restOfSocket()...)
		r.must(r.install(r.ctx, set, units...))
		r.must(r.start(r.ctx, "app.service"))
		return r, targets
	}
	t.Run("notify", func(t *testing.T) {
		r, targets := boot(t, "app.service")
		r.reloads(t, targets, func(c *clients) { // an upgrade fails, and the reload says so
			t.Helper()
			r.must(r.plan(planExit))
			if err := r.systemctl(r.ctx, "reload", "app.service"); err == nil || !strings.Contains(err.Error(), "Job for app.service failed") {
				t.Errorf("systemctl reload = %v, want a failure", err)
			}
			r.must(r.plan(""))
			r.says("app.service", reason)
			r.must(c.further(r.ctx, 5))
		})
		r.want("app.service", map[string]string{"Type": "notify"})
		r.stops(t)
	})
	// By the signal: the reload waits for the end of the upgrade, whichever that is.
	t.Run("notify-reload", func(t *testing.T) {
		r, targets := boot(t, "app.service", "app.service.d/notify-reload.conf")
		r.want("app.service", map[string]string{"Type": "notify-reload", "ReloadSignal": "12"})
		r.reloads(t, targets, func(c *clients) {
			t.Helper()
			old := r.pid("app.service")
			r.must(r.plan(planExit))
			r.must(r.systemctl(r.ctx, "reload", "app.service")) // it can't say so
			r.must(r.plan(""))
			status, err := r.show(r.ctx, "app.service", "StatusText")
			r.must(err)
			if pid := r.pid("app.service"); pid != old || !strings.Contains(status["StatusText"], "upgrade failed") {
				t.Errorf("after an upgrade that failed the main process is %d, the status %q; want %d and that it failed", pid, status["StatusText"], old)
			}
			r.must(c.further(r.ctx, 5))
		})
	})
	// The store outlives a stop, while another unit refers to the service.
	t.Run("preserve", func(t *testing.T) {
		for _, enabled := range []bool{true, false} {
			t.Run(fmt.Sprintf("enabled=%t", enabled), func(t *testing.T) {
				r := newTestRig(t, root)
				set, _ := plain(settings{extra: []string{"FileDescriptorStorePreserve=yes"}})
				set.listen = append(set.listen, restOfSocket()...)
				r.must(r.install(r.ctx, set, "app.service"))
				if enabled {
					r.must(r.systemctl(r.ctx, "enable", "app.service"))
					r.must(r.systemctl(r.ctx, "start", "multi-user.target"))
				}
				r.must(r.start(r.ctx, "app.service"))
				r.must(r.systemctl(r.ctx, "stop", "app.service"))
				stored := map[string]string{"ActiveState": "inactive", "SubState": "dead", "NFileDescriptorStore": "0"}
				var queued []net.Conn
				if enabled {
					stored["SubState"], stored["NFileDescriptorStore"] = "dead-resources-pinned", fmt.Sprint(len(set.listen))
					queued = r.dial(5) // no process accepts
				}
				r.want("app.service", stored)
				r.must(r.start(r.ctx, "app.service"))
				greeted(t, queued, r.pid("app.service"))
			})
		}
	})
}
