package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestDriver runs what make systemd runs, with a few upgrades and crashes, and
// reads its JSON as a script would.
func TestDriver(t *testing.T) {
	testenv.Long(t, "TestReport")
	testenv.Need(t, "systemd")
	program, err := buildBaton()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	driver, baton := filepath.Join(dir, "systemd"), filepath.Join(dir, "baton")
	testenv.Program(t, baton, program)
	if out, err := exec.Command("go", "build", "-o", driver, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the driver: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, driver, "-upgrades", "2", "-crashes", "2", "-workers", "2", "-probation", "50ms", "--json",
		"-baton", baton, "-units", filepath.Join("..", "..", "cmd", "baton", "systemd"), "-timeout", (3 * patience).String())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends what it has started
	cmd.WaitDelay = patience
	var out, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &progress
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &progress)
	}
	// JSON, and nothing else.
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	var got result
	if err := d.Decode(&got); err != nil {
		t.Fatalf("JSON: %v", err)
	}
	if d.More() {
		t.Error("something comes after the JSON")
	}
	lines := strings.Split(strings.TrimRight(progress.String(), "\n"), "\n")
	if last := lines[len(lines)-1]; last != got.line() || !strings.HasPrefix(last, "result: upgrades=2 crashes=2 requests=") || !strings.HasSuffix(last, " failed=0 refused=0") {
		t.Errorf("the last line is %q, the JSON says %q; want 2 upgrades, 2 crashes, and nothing failed or refused", last, got.line())
	}
	var steps []string
	for i, s := range got.Steps {
		steps = append(steps, s.Hold+": "+s.Kind)
		if s.From == 0 || s.To == 0 || s.From == s.To || s.Seconds <= 0 {
			t.Errorf("step %d: main process %d -> %d in %v s", i+1, s.From, s.To, s.Seconds)
		}
	}
	if want := []string{holdSocket + ": " + stepUpgrade, holdSocket + ": " + stepCrash, holdStore + ": " + stepUpgrade, holdStore + ": " + stepCrash}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	var requests, died uint64
	for _, target := range got.Targets {
		if target.Requests == 0 {
			t.Errorf("%s: %s: no requests", target.Hold, target.Name)
		}
		requests += target.Requests
		for v, n := range target.Verdicts {
			if v != inFlight && v != inHand {
				t.Errorf("%s: %s: %d requests %s", target.Hold, target.Name, n, v)
			}
			died += n
		}
	}
	if requests != got.Requests || died != got.InFlight+got.InHand || len(got.Targets) != 2*len((&options{}).targets()) {
		t.Errorf("%d kinds of clients, %d requests, %d died with a killed process; the sums are %d and %d", len(got.Targets), requests, died, got.Requests, got.InFlight+got.InHand)
	}
	if got.Systemd == 0 || got.Seconds <= 0 || len(got.Problems) > 0 {
		t.Errorf("systemd %d, %v s, problems %q", got.Systemd, got.Seconds, got.Problems)
	}
	t.Logf("systemd %d: %s, in %v", got.Systemd, got.line(), time.Duration(got.Seconds*float64(time.Second)).Round(time.Millisecond))
}

// TestReport wants the table and the last line on one stream without --json, and an
// exit status that tells.
func TestReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		res  result
		want int
		line string
	}{
		{result{Upgrades: 20, Crashes: 5, Requests: 7}, 0, "result: upgrades=20 crashes=5 requests=7 failed=0 refused=0"},
		{result{Requests: 7, Failed: 1}, 1, "result: upgrades=0 crashes=0 requests=7 failed=1 refused=0"},
		{result{Requests: 7, Refused: 2}, 1, "result: upgrades=0 crashes=0 requests=7 failed=0 refused=2"},
		{result{Problems: []string{"odd"}}, 1, "result: upgrades=0 crashes=0 requests=0 failed=0 refused=0"},
	} {
		var out bytes.Buffer
		code := report(&c.res, nil, false, &out, &out)
		if text := out.String(); code != c.want || !strings.HasSuffix(text, "\n"+c.line+"\n") || !strings.HasPrefix(text, "\n") {
			t.Errorf("report of %+v = %d, want %d:\n%s", c.res, code, c.want, text)
		}
	}
	var out bytes.Buffer
	if code := report(&result{}, context.DeadlineExceeded, false, &out, &out); code != 1 || !strings.Contains(out.String(), "\nPROBLEM "+context.DeadlineExceeded.Error()+"\n") {
		t.Errorf("report of an error = %d:\n%s", code, &out)
	}
}
