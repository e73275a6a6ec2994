package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	part := func(role string) func([]string) {
		return func(args []string) {
			if _, err := takePart(role, args); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	testmain.RunWith(m, map[string]func([]string){"init": part("init"), "service": part("service"), "clients": part("clients")})
}

// patience bounds a wait that nothing should make necessary.
const patience = 90 * time.Second

// buildBaton builds the command once, statically: other systems have other
// libraries. It returns the program.
var buildBaton = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "baton-bin-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "baton")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/baton")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build baton: %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// testRig is a rig that belongs to a test.
type testRig struct {
	*rig
	tb  testing.TB
	ctx context.Context
}

// newTestRig boots a machine on a system; empty is this one.
func newTestRig(t *testing.T, root string) *testRig {
	t.Helper()
	testenv.Need(t, "systemd")
	program, err := buildBaton()
	if err != nil {
		t.Fatal(err)
	}
	baton := filepath.Join(t.TempDir(), "baton")
	testenv.Program(t, baton, program)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	r, err := newRig(ctx, rigConfig{
		command: func(role string, args ...string) *exec.Cmd { return testmain.Command(t, role, args...) },
		baton:   baton, units: filepath.Join("..", "..", "cmd", "baton", "systemd"), root: root,
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	tr := &testRig{rig: r, tb: t, ctx: ctx}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			out, _ := r.m.Output(context.WithoutCancel(ctx), "journalctl", "--no-pager", "-o", "short-precise")
			t.Logf("journal:\n%s", out)
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// must fails the test.
func (r *testRig) must(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// want compares properties of a unit.
func (r *testRig) want(unit string, want map[string]string) {
	r.tb.Helper()
	var names []string
	for name := range want {
		names = append(names, name)
	}
	got, err := r.show(r.ctx, unit, names...)
	r.must(err)
	for name, value := range want {
		if got[name] != value {
			r.tb.Errorf("%s of %s is %q, want %q", name, unit, got[name], value)
		}
	}
}

// await waits until properties of a unit are so.
func (r *testRig) await(unit string, want map[string]string) {
	r.tb.Helper()
	var names []string
	for name := range want {
		names = append(names, name)
	}
	var got map[string]string
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	if err := until(ctx, fmt.Sprintf("%s with %v", unit, want), func() (bool, error) {
		var err error
		got, err = r.show(ctx, unit, names...)
		for name, value := range want {
			if got[name] != value {
				return false, err
			}
		}
		return true, err
	}); err != nil {
		r.tb.Fatalf("%v: it has %v", err, got)
	}
}

// pid returns the main process of a unit.
func (r *testRig) pid(unit string) int {
	r.tb.Helper()
	pid, err := r.mainPID(r.ctx, unit)
	r.must(err)
	return pid
}

// load starts clients.
func (r *testRig) load(targets ...load.Target) *clients {
	r.tb.Helper()
	c, err := r.startClients(r.ctx, targets...)
	r.must(err)
	return c
}

// lossless ends clients and wants none of their requests to have failed.
func (r *testRig) lossless(c *clients) load.Stats {
	r.tb.Helper()
	stats, failures, err := c.stop(r.ctx)
	r.must(err)
	for _, f := range failures {
		r.tb.Errorf("after %.2f s: %s: %s: %s: %s", f.Seconds, f.Target, f.Step, f.Class, f.Error)
	}
	r.tb.Logf("%d requests, %d failed", stats.Questions+stats.Failed, stats.Failed)
	return stats
}

// silent wants the journal of a unit to have none of words.
//
// Of a main process that it has not started, systemd does not see the end, and
// kills what is no longer there: that has no name, which is not meant.
func (r *testRig) silent(unit string, words ...string) {
	r.tb.Helper()
	text := regexp.MustCompile(`Killing process \d+ \(n/a\)`).ReplaceAllString(r.journal(r.ctx, unit), "")
	for _, w := range words {
		if strings.Contains(text, w) {
			r.tb.Errorf("the journal of %s has %q:\n%s", unit, w, text)
		}
	}
}

// says waits for the journal of a unit to have words.
func (r *testRig) says(unit string, words ...string) {
	r.tb.Helper()
	for _, w := range words {
		ctx, cancel := context.WithTimeout(r.ctx, patience)
		err := until(ctx, fmt.Sprintf("%q in the journal", w), func() (bool, error) {
			return strings.Contains(r.journal(ctx, unit), w), nil
		})
		cancel()
		r.must(err)
	}
}
