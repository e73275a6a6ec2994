package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/cmd/baton/internal/supervisor"
	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/terminal"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestExitStatus compares the exit status for each condition with the documented one.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want exit
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{errUsage, 2},
		{control.ErrNoServer, 3},
		{control.ErrStale, 4},
		{handoff.ErrPeerRefused, 5},
		{handoff.ErrVersion, 6},
		{handoff.ErrUnsupported, 6},
		{handoff.ErrProtocol, 6},
		{control.ErrNoSpace, 7},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 7},
		{&handoff.UpgradeError{Err: handoff.ErrSuccessorDied}, 8},
		{&handoff.UpgradeError{Err: handoff.ErrAborted}, 8},
		{&handoff.UpgradeError{Err: handoff.ErrAborted, Outcome: handoff.OutcomeFailed}, 8},
		{&handoff.UpgradeError{Err: handoff.ErrAborted, Outcome: handoff.OutcomeRolledBack}, 9},
		{&handoff.UpgradeError{Err: handoff.ErrTimeout, Outcome: handoff.OutcomeRolledBack}, 10},
		{&handoff.UpgradeError{Err: handoff.ErrTransfer}, 8},
		{&handoff.UpgradeError{Err: errors.New("new")}, 8},
		{&handoff.UpgradeError{Err: handoff.ErrRolledBack}, 9},
		{&handoff.UpgradeError{Err: fmt.Errorf("%w: %w", handoff.ErrRolledBack, handoff.ErrTimeout)}, 10},
		{handoff.ErrInProgress, 11},
		{handoff.ErrNotReady, 12},
		{handoff.ErrInProbation, 12},
		{handoff.ErrNoUpgrade, 12},
		{handoff.ErrCommitted, 13},
		{errProblem, 14},
		{control.ErrNoAnswer, 15},
		{fmt.Errorf("control: status: %w", errSilent), 15},
		{handoff.ErrClosed, 15},
		{supervisor.ErrStart, 16},
		{supervisor.ErrFailed, 17},
		{fmt.Errorf("%w: %w", supervisor.ErrListen, syscall.EADDRINUSE), 18},
		{errors.ErrUnsupported, 6},
	} {
		got, _ := statusOf(c.err)
		if got != c.want {
			t.Errorf("statusOf(%v) = %d, want %d", c.err, got, c.want)
		}
		if int(got) >= len(exitTexts()) {
			t.Errorf("exit status %d is not documented", got)
		}
	}
}

// TestRefusals asks servers that refuse a client, each for another reason.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code   byte // of the message Refuse
		reason string
		want   exit
		line   string
	}{
		{16, "the tool speaks 1 to 1, the server 2 to 3", 6, "no common protocol version"},
		{24, "no requests", 6, "older than this tool"},
		{15, "pid 1 has uid 5, we have 6", 5, "has uid 5"},
		{22, "on its way out", 15, "closed"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			uc, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			payload := append([]byte{1, 1, c.code, 2, byte(len(c.reason))}, c.reason...)
			_, _ = uc.Read(make([]byte, 4096)) // the request
			_, _ = uc.Write(append([]byte{0, 0, 0, byte(len(payload)), 0, 3, 0, 0}, payload...))
			_ = uc.Close()
		}()
		var out, errs bytes.Buffer
		got := run([]string{"status", "--socket", path}, &out, &errs)
		if got != c.want || !strings.Contains(errs.String(), c.line) || strings.Count(errs.String(), "\n") != 1 || out.Len() > 0 {
			t.Errorf("refused with code %d: exit status %d, stderr %q, stdout %q; want %d, one line with %q", c.code, got, &errs, &out, c.want, c.line)
		}
		_ = ln.Close()
		<-done
	}
}

// TestWhichServer chooses among no server, one and several.
func TestWhichServer(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	a := newApp(&bytes.Buffer{})
	a.sockets = filepath.Join(dir, "*", "control.sock")
	if _, err := a.client(nil); !errors.Is(err, control.ErrNoServer) {
		t.Errorf("client() of none = %v, want ErrNoServer", err)
	}
	for i, name := range []string{"api", "web"} {
		path := filepath.Join(dir, name, "control.sock")
		if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		c, err := a.client(nil)
		if i == 0 && (err != nil || c.Socket() != path) {
			t.Errorf("client() of one = %v, %v, want %s", c, err, path)
		}
		if i == 1 && (!errors.Is(err, errUsage) || !strings.Contains(err.Error(), "api, web")) {
			t.Errorf("client() of two = %v, want a question", err)
		}
		if c, err := a.client([]string{name}); err != nil || c.Socket() != path {
			t.Errorf("client(%s) = %v, %v", name, c, err)
		}
	}
	// A name that no server has is answered by those that there are.
	if err := a.others(control.ErrNoServer, []string{"apu"}); err.Error() != control.ErrNoServer.Error() {
		t.Errorf("others() where no process serves = %v, want no names", err)
	}
	if got := a.names(); !slices.Equal(got, []string{"api", "web"}) {
		t.Errorf("names() = %v", got)
	}
	path := a.path("web")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if c, err := a.client(nil); err != nil || c.Socket() != path {
		t.Errorf("client() with one that no process serves = %v, %v, want %s", c, err, path)
	}
	if err := a.others(control.ErrNoServer, []string{"apu"}); !errors.Is(err, control.ErrNoServer) || !strings.HasSuffix(err.Error(), "; this user's servers are: web") {
		t.Errorf("others() = %v, want the name of the server", err)
	}
}

// TestIdle says once what a command waits for when a process without connections does
// not end, as one whose program never calls Shutdown.
func TestIdle(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := newApp(&out)
	p := &progress{app: a, began: time.Now()}
	for i := range 3 * idleNotice {
		p.linger(control.Linger{})
		if got, want := strings.Count(out.String(), "waiting until its program calls Shutdown and returns"), map[bool]int{true: 1}[i+1 >= idleNotice]; got != want {
			t.Fatalf("after %d counts of no connection: the notice is there %d times, want %d", i+1, got, want)
		}
	}
}

// TestScreen expects colours and live lines on a terminal only.
func TestScreen(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	st := &handoff.Status{
		Name: "api", State: handoff.StateServing, Uptime: time.Hour, Remaining: time.Minute,
		Lingering: []handoff.Process{{PID: 7, Remaining: -1}},
	}
	for width, want := range map[int]bool{0: false, 80: true} {
		var out bytes.Buffer
		a := newApp(&out)
		a.screen = terminal.Sized(a.out, width, 24)
		a.showStatus(st, true)
		a.screen.Status("%s", strings.Repeat("live ", 50))
		a.screen.Line("stays")
		text := out.String()
		if strings.Contains(text, "\x1b[32mserving") != want || strings.Contains(text, "\x1b[J") != want || strings.Contains(text, "live") != want {
			t.Errorf("with width %d: %q", width, text)
		}
		if !strings.HasSuffix(text, "stays\n") || !strings.Contains(text, "pid 7") || !strings.Contains(text, "when it is done") || !strings.Contains(text, "cut in 1m0s") {
			t.Errorf("with width %d: %q", width, text)
		}
	}
	if got := bar(1, 4); got != "[#####...............]" {
		t.Errorf("bar(1, 4) = %s", got)
	}
	if got := bar(0, 0); strings.Contains(got, ".") {
		t.Errorf("bar(0, 0) = %s", got)
	}
}

// TestStored expects the column STORED only where systemd's store has a socket.
func TestStored(t *testing.T) {
	t.Parallel()
	a := newApp(&bytes.Buffer{})
	st := &handoff.Status{Sockets: []handoff.SocketStatus{
		{Name: "web", Kind: "listener", Network: "tcp", Address: "[::]:80", Queue: 1, Backlog: 128, Accepted: 9},
		{Kind: "file", Queue: -1, Backlog: -1, HalfOpen: -1},
	}}
	if text := a.statusText(st); strings.Contains(text, "STORED") || !strings.Contains(text, " ACCEPTED\n") {
		t.Errorf("without a store:\n%s", text)
	}
	st.Sockets[0].Stored = true
	const want = `
SOCKET  NETWORK  ADDRESS  QUEUE  BACKLOG  HALF-OPEN  ACCEPTED  STORED
web     tcp      [::]:80  1      128      0          9         yes
file    -        -        -      -        -          -         no
`
	if text := a.statusText(st); !strings.Contains(text, want) {
		t.Errorf("with a store:\n%s\nwant%s", text, want)
	}
}

// TestStatusRemarks shows connections that a process has received and not accepted, the
// addresses that its predecessor gave up, and what an operator should change.
func TestStatusRemarks(t *testing.T) {
	t.Parallel()
	a := newApp(&bytes.Buffer{})
	text := a.statusText(&handoff.Status{
		Received: 3, Open: 3, Remaining: -1, NoUpgrade: "PID 1 ends with it", Warnings: []string{"the sockets are of another namespace"},
		Upgrades: []handoff.Report{{Outcome: handoff.OutcomeCommitted, Warnings: []string{"tcp 127.0.0.1:9090 is given up"}}},
	})
	for _, want := range []string{
		"0 accepted, 3 received, 3 open, 0 moved, 0 cut\n", "\nno upgrade can begin: PID 1 ends with it\n", "\nwarning: the sockets are of another namespace\n",
		"    tcp 127.0.0.1:9090 is given up\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("status has no %q:\n%s", want, text)
		}
	}
}

// TestStatusOfFlows has a table of the lanes.
func TestStatusOfFlows(t *testing.T) {
	t.Parallel()
	st := &handoff.Status{Flows: []handoff.FlowStatus{{Network: "udp", Address: "[::]:443", Strategy: "lanes", Lanes: 8, Lane: 2, Current: 2, Used: []int{1, 2}}}}
	const want = `
FLOWS  ADDRESS   STRATEGY  LANE  USED  LANES  KEPT
udp    [::]:443  lanes     2     2     8      0
`
	if text := newApp(&bytes.Buffer{}).statusText(st); !strings.Contains(text, want) {
		t.Errorf("status:\n%s\nwant%s", text, want)
	}
}

// TestDoctorPaths examines control sockets whose path is gone, or another server's.
func TestDoctorPaths(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	path := filepath.Join(dir, "api", "control.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	look := func(want verdict, text string) {
		t.Helper()
		if f := checkPaths(filepath.Join(dir, "*", "control.sock")); f.Verdict != want || !strings.Contains(f.Found, text) {
			t.Errorf("paths: %+v, want %s: %s", f, want, text)
		}
	}
	look(ok, "")
	first, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	look(ok, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look(problem, fmt.Sprintf("pid %d serves %s, and that path was removed", os.Getpid(), path))
	second, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	look(problem, fmt.Sprintf("pids %d %[1]d serve %s", os.Getpid(), path))
}

// TestDoctor examines broken and healthy folders and servers.
func TestDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		got  finding
		want verdict
	}{
		"no folder yet":          {checkFolder(filepath.Join(dir, "none")), ok},
		"a file":                 {checkFolder(filepath.Join(dir, "file")), problem},
		"everybody's":            {checkFolder(open), problem},
		"a folder":               {checkFolder(dir), ok},
		"no server's folder":     {checkSocketFolder(filepath.Join(dir, "none")), problem},
		"open server's folder":   {checkSocketFolder(open), problem},
		"full disk":              {roomFor("/proc"), ok}, // a file system without blocks
		"no server":              {checkServer(nil, control.ErrStale), problem},
		"PID 1":                  {checkServer(&handoff.Status{NoUpgrade: "PID 1 ends"}, nil), problem},
		"another namespace":      {checkServer(&handoff.Status{Executable: dir, Warnings: []string{"the sockets are of another one"}}, nil), warning},
		"no program":             {checkServer(&handoff.Status{PID: 2, Executable: filepath.Join(dir, "none")}, nil), warning},
		"a server that is well":  {checkServer(&handoff.Status{PID: 2, Executable: dir}, nil), ok},
		"many that linger there": {checkServer(&handoff.Status{PID: 2, Executable: dir, Lingering: make([]handoff.Process, 4)}, nil), warning},
	} {
		if c.got.Verdict != c.want || c.want != ok && c.got.Advice == "" && name != "no server" {
			t.Errorf("%s: %+v, want %s with advice", name, c.got, c.want)
		}
	}
	if f := checkServerFiles(os.Getpid()); f.Verdict != ok || !strings.Contains(f.Found, " are in use") {
		t.Errorf("files of this process: %+v", f)
	}
	if f := checkServerFiles(1 << 30); f.Verdict != note {
		t.Errorf("files of no process: %+v, want a note", f)
	}
	var out bytes.Buffer
	a := newApp(&out)
	err := a.examine([]check{{"x", func() finding { return finding{Verdict: problem, Found: "y", Advice: "z"} }}})
	if !errors.Is(err, errProblem) || out.String() != "problem  x: y\n         z\n" {
		t.Errorf("examine() = %v, %q", err, &out)
	}
}
