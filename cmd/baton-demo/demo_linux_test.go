package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// patience bounds each wait for processes.
const patience = 5 * time.Minute

// TestProcesses builds the program once and runs the tests one after another: each
// keeps the machine busy.
func TestProcesses(t *testing.T) {
	bin := t.TempDir()
	build := func(name, version, dir string) {
		t.Helper()
		out, err := exec.Command("go", "build", "-ldflags", "-s -w -X main.version="+version, "-o", filepath.Join(bin, name), dir).CombinedOutput()
		if err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	build("v1", "v1", ".")
	t.Run("demo", func(t *testing.T) { testDemo(t, bin) }) // it builds what else it needs
	if !testing.Short() {
		build("v2", "v2", ".")
		build(batonName, "", "../"+batonName)
	}
	// Each demo builds two versions of the service.
	t.Run("killed demo", func(t *testing.T) {
		testenv.Long(t, "TestProcesses")
		testKilledDemo(t, bin)
	})
	t.Run("interrupted demo", func(t *testing.T) {
		testenv.Long(t, "TestProcesses")
		testInterruptedDemo(t, bin)
	})
	for _, mode := range modes() {
		t.Run("bad version, "+string(mode), func(t *testing.T) {
			testenv.Long(t, "handoff.TestFailedUpgrade") // in the demo, each mode upgrades
			testBadVersion(t, bin, mode)
		})
	}
	t.Run("killed service", func(t *testing.T) {
		testenv.Long(t, "TestJudge")
		testKilledService(t, bin)
	})
}

// demoCmd returns the demo as a process, with temporary files in dir.
func demoCmd(t *testing.T, bin, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "v1"), append([]string{"demo", "-upgrades", "1", "-probation", "100ms", "-workers", "2"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// testDemo runs the whole demo with few upgrades.
func testDemo(t *testing.T, bin string) {
	dir := testenv.ShortDir(t)
	cmd := demoCmd(t, bin, dir, "-json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("demo: %v\n%s\n%s", err, &stderr, &stdout)
	}
	t.Logf("progress:\n%s", &stderr)
	var res result
	if err := json.Unmarshal(stdout.Bytes(), &res); err != nil {
		t.Fatalf("%v in\n%s", err, &stdout)
	}
	if !res.OK || res.Failed != 0 || res.Upgrades != len(modes()) || res.Connections == 0 {
		t.Errorf("result: ok %v, %s", res.OK, res.line())
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if last := lines[len(lines)-1]; last != res.line() {
		t.Errorf("last line: %q, want %q", last, res.line())
	}
	if strings.ContainsAny(stderr.String(), "\r\x1b") {
		t.Errorf("control characters in a pipe: %q", &stderr)
	}
	var names []handoff.Mode
	for _, m := range res.Modes {
		names = append(names, m.Mode)
		if m.AnsweredLast != "v2" || m.Crossed == 0 || m.Moved == 0 || m.LongestGapMS <= 0 {
			t.Errorf("%s: %q answered last, %d crossed, %d moved, longest gap %v ms", m.Mode, m.AnsweredLast, m.Crossed, m.Moved, m.LongestGapMS)
		}
		for name, target := range m.Load.Targets {
			if target.Versions["v1"] == 0 || target.Versions["v2"] == 0 {
				t.Errorf("%s: %s was answered by %v, want v1 and v2", m.Mode, name, target.Versions)
			}
		}
		for _, each := range m.Each {
			if each.Report == nil || each.Report.Mode != m.Mode || each.Report.Sockets != 4 {
				t.Errorf("%s: report %+v, want four sockets passed in that mode", m.Mode, each.Report)
			}
		}
	}
	if !slices.Equal(names, modes()) {
		t.Errorf("modes %v, want %v", names, modes())
	}
	wantEmpty(t, dir)
}

// testKilledDemo kills the demo; its processes must end too.
func testKilledDemo(t *testing.T, bin string) {
	cmd := demoCmd(t, bin, testenv.ShortDir(t), "-upgrades", "3")
	mark := "BATON_DEMO_TEST=" + t.TempDir()
	cmd.Env = append(cmd.Env, mark)
	awaitLine(t, cmd, "v1 -> v2", func() {
		// By now the first process may have ended, and its successor has been adopted.
		if pids := marked(mark); len(pids) < 3 {
			t.Errorf("processes: %v, want demo, service and clients", pids)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		pids := marked(mark)
		if len(pids) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			_ = killAll(pids)
			t.Fatalf("processes %v outlive the demo", pids)
		}
	}
}

// testInterruptedDemo interrupts the demo with Ctrl-C: it cleans up, and reports that
// it is not finished.
func testInterruptedDemo(t *testing.T, bin string) {
	dir := testenv.ShortDir(t)
	cmd := demoCmd(t, bin, dir, "-upgrades", "3")
	mark := "BATON_DEMO_TEST=" + t.TempDir()
	cmd.Env = append(cmd.Env, mark)
	out := awaitLine(t, cmd, "v1 -> v2", func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	})
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit status: %v, want 1", cmd.ProcessState)
	}
	if lines := strings.Split(strings.TrimSpace(out), "\n"); !strings.HasPrefix(lines[len(lines)-1], "result: upgrades=") {
		t.Errorf("last line: %q, want the result", lines[len(lines)-1])
	}
	if pids := marked(mark); len(pids) > 0 {
		t.Errorf("processes %v outlive the demo", pids)
	}
	wantEmpty(t, dir)
}

// awaitLine starts cmd, calls f when it prints a line with text, and waits for its end.
// It returns the output after that line.
func awaitLine(t *testing.T, cmd *exec.Cmd, text string, f func()) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for found := false; !found; {
		line, err := r.ReadString('\n')
		found = strings.Contains(line, text)
		if err != nil {
			t.Errorf("no line with %q: %v", text, err)
			break
		}
	}
	f()
	rest, _ := io.ReadAll(r)
	_ = cmd.Wait()
	return string(rest)
}

// startRig starts version v1 of the service, with clients.
func startRig(ctx context.Context, t *testing.T, bin string, mode handoff.Mode) (*rig, addresses) {
	t.Helper()
	if err := adopt(); err != nil {
		t.Fatal(err)
	}
	r, err := newRig(testenv.ShortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", strings.Join(r.lastLog(50), "\n"))
		}
	})
	r.baton = filepath.Join(bin, batonName)
	if err := install(filepath.Join(bin, "v1"), r.path); err != nil {
		t.Fatal(err)
	}
	a, err := r.startService(ctx, "-mode", string(mode), "-probation", "100ms")
	if err == nil {
		err = r.startClients(ctx, a, "-workers", "2", "-timeout", "5s")
	}
	if err != nil {
		_, closeErr := r.close()
		t.Fatal(err, closeErr)
	}
	return r, a
}

// testBadVersion installs a version that does not start. The upgrade fails, and no
// connection does.
func testBadVersion(t *testing.T, bin string, mode handoff.Mode) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, _ := startRig(ctx, t, bin, mode)
	testenv.Program(t, r.path+".bad", []byte("#!/bin/sh\necho this version fails >&2\nexit 1\n"))
	err := os.Rename(r.path+".bad", r.path)
	if err == nil {
		_, err = r.upgrade(ctx, "v1", "v2", func(handoff.EventKind) {})
	}
	if err == nil || !strings.Contains(err.Error(), "upgrade to v2") {
		t.Errorf("upgrade: %v, want an error", err)
	}
	// The old version serves on, and a good version can replace it.
	err = install(filepath.Join(bin, "v2"), r.path)
	if err == nil {
		_, err = r.upgrade(ctx, "v1", "v2", func(handoff.EventKind) {})
	}
	if err == nil {
		err = r.settle(ctx, "v2")
	}
	var s load.Stats
	if err == nil {
		s, err = r.stop(ctx)
	}
	left, closeErr := r.close()
	if err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	m := modeResult{Mode: mode, Upgrades: 1}
	m.count(s)
	m.judge(1, "v2")
	if len(m.Problems) > 0 {
		t.Errorf("problems: %q", m.Problems)
	}
}

// testKilledService kills the service and starts the next version. That costs
// connections, and the demo must report it.
func testKilledService(t *testing.T, bin string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, a := startRig(ctx, t, bin, handoff.Inherit)
	next, err := newRig(testenv.ShortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	err = func() error {
		pid, err := r.pid()
		if err != nil {
			return err
		}
		if err := killAll([]int{pid}); err != nil {
			return err
		}
		err = r.until(ctx, "failures", func() (bool, error) { return r.stats.Failed > 0, nil })
		if err != nil {
			return err
		}
		if err := install(filepath.Join(bin, "v2"), next.path); err != nil {
			return err
		}
		_, err = next.startService(ctx, "-tcp", a.TCP, "-unix", a.Unix, "-udp", a.UDP, "-http", a.HTTP)
		if err != nil {
			return err
		}
		err = r.until(ctx, "answers of the next version", func() (bool, error) {
			for _, target := range r.stats.Targets {
				if target.AnsweredLast != "v2" {
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil {
			return err
		}
		_ = r.clientStdin.Close()
		return r.until(ctx, "end of the clients", func() (bool, error) { return r.final, nil })
	}()
	_, closeErr := r.close()
	_, nextErr := next.close()
	if err := errors.Join(err, closeErr, nextErr); err != nil {
		t.Fatal(err)
	}
	s := r.latest()
	t.Logf("%d of %d failed: %s; longest gap %.1f ms", s.Failed, s.Connections, classes(s.Failures), s.LongestGapMS)
	if s.Failures[load.Refused] == 0 {
		t.Errorf("no connection was refused: %v", s.Failures)
	}
	if open := s.Targets["tcp-open"].Failed + s.Targets["unix-open"].Failed + s.Targets["tcp-marked"].Failed; open < 6 {
		t.Errorf("%d of the open connections failed, want at least the 6 that were open", open)
	}
	m := modeResult{Mode: handoff.Inherit, Upgrades: 1}
	m.count(s)
	m.judge(1, "v2")
	want := fmt.Sprintf("%d of %d connections failed", s.Failed, s.Connections)
	if !slices.ContainsFunc(m.Problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
		t.Errorf("problems: %q, want one that begins %q", m.Problems, want)
	}
}
