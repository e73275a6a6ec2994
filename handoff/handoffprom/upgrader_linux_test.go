package handoffprom_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffprom"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestUpgrader upgrades a service whose both generations are scraped.
func TestUpgrader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "c", "s")
	next := func() *handoff.Upgrader {
		up, err := handoff.New(&handoff.Config{
			Mode: handoff.Takeover, ControlSocket: path, Probation: -1,
			UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = up.Close() })
		return up
	}
	first := next()
	ln, err := first.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Ready(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := served.Close(); err != nil {
		t.Fatal(err)
	}
	metrics := handoffprom.New(first)
	for name, want := range map[string]int{"baton_upgrades_total": 3, "baton_socket_accepted_total": 1, "baton_socket_half_open": 1} {
		if got := testutil.CollectAndCount(metrics, name); got != want {
			t.Errorf("%d series of %s, want %d", got, name, want)
		}
	}

	second := next()
	metrics = handoffprom.New(second)
	if got := testutil.CollectAndCount(metrics, "baton_upgrades_total"); got != 0 {
		t.Errorf("%d series of baton_upgrades_total before the commit, want none", got)
	}
	if _, err := second.Listen(t.Context(), "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := second.Ready(); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	if err := first.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	deadline := time.After(10 * time.Second)
	for testutil.CollectAndCount(metrics, "baton_upgrades_total") == 0 { // told right behind the commit
		select {
		case <-deadline:
			t.Fatal("the successor has no baton_upgrades_total")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if got := second.Status().Totals.Committed; got != 1 {
		t.Errorf("%d upgrades committed, want 1", got)
	}
}
