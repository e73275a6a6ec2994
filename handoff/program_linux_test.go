package handoff_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// copyBinary makes path a program that is this one, in a file of its own.
func copyBinary(tb testing.TB, path string) {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	testenv.CopyProgram(tb, exe, path)
}

// installed is a service whose program is a file of its own, which the tests replace
// and remove.
type installed struct {
	*service
	bin string // folder of the program
	app string
}

func install(tb testing.TB, mode handoff.Mode) *installed {
	tb.Helper()
	bin := testenv.ShortDir(tb)
	i := &installed{newService(tb, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}), bin, filepath.Join(bin, "app")}
	copyBinary(tb, i.app)
	return i
}

// run starts the program under the name arg0, in a working directory.
func (i *installed) run(v variation, dir, arg0 string) {
	i.tb.Helper()
	cmd := i.varied(v)
	cmd.Path, cmd.Dir, cmd.Args[0] = i.app, dir, arg0
	cmd.Env = append(cmd.Env, "PATH="+i.bin+":"+os.Getenv("PATH"))
	i.startCommand(cmd)
	i.wait("owner")
}

// try triggers an upgrade and returns its result. Unlike service.upgrade, it may follow
// directly after a failed upgrade, which stays in progress for a moment after reporting
// its failure.
func (s *service) try() message {
	s.tb.Helper()
	started := func() (n int) {
		for _, m := range s.received() {
			if m.Kind == "upgrade-started" {
				n++
			}
		}
		return n
	}
	busy := func() int { return strings.Count(s.log(), "an upgrade is in progress") }
	for before := started(); started() == before; {
		was := busy()
		s.signal(syscall.SIGUSR2)
		eventually(s.tb, "an upgrade has begun, or another one is in progress", func() bool { return started() > before || busy() > was })
	}
	return s.waitFor("the end of the upgrade", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" })
}

// mustCommit has an upgrade succeed, and its predecessor end.
func (s *service) mustCommit() *handoff.Report {
	s.tb.Helper()
	m := s.try()
	if m.Kind != "committed" {
		s.tb.Fatalf("upgrade: %s %v %s", m.Kind, m.Is, m.Err)
	}
	s.wait("exit")
	return m.Report
}

// mustFail has an upgrade fail with an error that holds each of the words.
func (s *service) mustFail(words ...string) message {
	s.tb.Helper()
	m := s.try()
	if m.Kind != "upgrade-failed" {
		s.tb.Errorf("upgrade: %s, want a failure", m.Kind)
	}
	for _, w := range words {
		if !strings.Contains(m.Err, w) {
			s.tb.Errorf("upgrade: %v %s, want %q in it", m.Is, m.Err, w)
		}
	}
	return m
}

// runs checks that the process that serves runs the file at path.
func (i *installed) runs(path string) {
	i.tb.Helper()
	want, err := os.Stat(path)
	if err != nil {
		i.tb.Fatal(err)
	}
	got, err := os.Stat(fmt.Sprintf("/proc/%d/exe", i.pid()))
	if err != nil || !os.SameFile(got, want) {
		i.tb.Errorf("the service runs another program than %s (%v)", path, err)
	}
}

// TestExecutable upgrades a service while its program is replaced, removed or
// written to.
func TestExecutable(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{}, "", i.app)
		// Removed: the error says what to do, and doing it helps.
		if err := os.Remove(i.app); err != nil {
			t.Fatal(err)
		}
		i.mustFail(i.app+" is gone", "install the new version at that path")
		copyBinary(t, i.app)
		i.mustCommit()
		i.runs(i.app)
		// Replaced by rename, as installers do it.
		next := filepath.Join(i.bin, "next")
		copyBinary(t, next)
		if err := os.Rename(next, i.app); err != nil {
			t.Fatal(err)
		}
		i.mustCommit()
		i.runs(i.app)
		// Overwritten: the kernel refuses that.
		if f, err := os.OpenFile(i.app, os.O_WRONLY, 0); !errors.Is(err, syscall.ETXTBSY) {
			t.Errorf("open the running program to write: %v, want %v", err, syscall.ETXTBSY)
			_ = f.Close()
		}
		// Removed and written anew, and not finished yet.
		copyBinary(t, next)
		w, err := os.OpenFile(next, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := os.Rename(next, i.app); err != nil {
			t.Fatal(err)
		}
		i.mustFail("is being written", "by rename")
		// No program at all.
		if err := errors.Join(os.Remove(i.app), os.WriteFile(i.app, []byte("nothing that runs"), 0o755)); err != nil {
			t.Fatal(err)
		}
		if m := i.mustFail("exec format error"); strings.Contains(m.Err, "had not called") {
			t.Errorf("of a program that never ran the error says: %s", m.Err)
		}
		if err := os.Chmod(i.app, 0o644); err != nil {
			t.Fatal(err)
		}
		i.mustFail("chmod +x it", "permission denied")
		copyBinary(t, next)
		if err := os.Rename(next, i.app); err != nil {
			t.Fatal(err)
		}
		i.mustCommit()
		i.stop()
	})
}

// TestRelative starts a service by a relative path.
func TestRelative(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{}, i.bin, "./app")
		i.mustCommit()
		i.runs(i.app)
		i.stop()

		i = install(t, mode)
		i.run(variation{Chdir: "/"}, i.bin, "./app")
		if mode == handoff.Inherit {
			m := i.mustFail("tableflip would start the one in the working directory /,", "start the service by an absolute path, or use mode Takeover")
			if !slices.Contains(m.Is, "ErrUnsupported") {
				t.Errorf("upgrade: %v %s, want ErrUnsupported", m.Is, m.Err)
			}
		} else {
			i.mustCommit()
			i.runs(i.app)
			i.mustCommit()
		}
		i.stop()
	})
}

// TestReleases upgrades a service to the release that a link leads to, and removes the
// release before: without $PWD, as systemd starts a service, too. What a version has set
// in its environment is not in that of its successor.
func TestReleases(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		release := func(name string) string {
			dir := filepath.Join(i.bin, name)
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink(name, filepath.Join(i.bin, "next"))); err != nil {
				t.Fatal(err)
			}
			copyBinary(t, filepath.Join(dir, "app"))
			if err := os.Rename(filepath.Join(i.bin, "next"), filepath.Join(i.bin, "current")); err != nil {
				t.Fatal(err)
			}
			return dir
		}
		release("r1")
		current := filepath.Join(i.bin, "current")
		i.app = filepath.Join(current, "app")
		cmd := i.varied(variation{Setenv: "BATON_TEST_SET"})
		cmd.Path, cmd.Dir, cmd.Args[0] = "/usr/bin/env", current, "env"
		cmd.Args = slices.Concat([]string{"env", "-u", "PWD", i.app}, cmd.Args[1:])
		if mode == handoff.Inherit { // tableflip knows $PWD alone
			cmd.Args = slices.Concat([]string{"env", "PWD=" + current, i.app}, cmd.Args[4:])
		}
		i.startCommand(cmd)
		i.wait("owner")
		for _, name := range []string{"r2", "r3"} {
			before := i.pid()
			dir := release(name)
			if r := i.mustCommit(); len(r.Warnings) > 0 {
				t.Errorf("of another release the report warns: %q", r.Warnings)
			}
			i.runs(filepath.Join(dir, "app"))
			if got, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", i.pid())); err != nil || got != dir {
				t.Errorf("the successor of %d runs in %s (%v), want %s", before, got, err, dir)
			}
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", i.pid()))
			if inherits := strings.Contains(string(env), "BATON_TEST_SET="); err != nil || inherits != (mode == handoff.Inherit) {
				t.Errorf("the successor has inherited what its predecessor has set: %v (%v)", inherits, err)
			}
			if err := os.RemoveAll(filepath.Join(i.bin, map[string]string{"r2": "r1", "r3": "r2"}[name])); err != nil {
				t.Fatal(err)
			}
		}
		i.stop()
	})
}

// TestReleasesUnknown removes the release of a service that was started without $PWD in mode
// Inherit: the error says that, and not that the program is broken.
func TestReleasesUnknown(t *testing.T) {
	t.Parallel()
	i := install(t, handoff.Inherit)
	dir, current := filepath.Join(i.bin, "r1"), filepath.Join(i.bin, "current")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink("r1", current)); err != nil {
		t.Fatal(err)
	}
	copyBinary(t, filepath.Join(dir, "app"))
	cmd := i.varied(variation{})
	cmd.Path, cmd.Dir = "/usr/bin/env", current
	cmd.Args = slices.Concat([]string{"env", "-u", "PWD", filepath.Join(current, "app")}, cmd.Args[1:])
	i.startCommand(cmd)
	i.wait("owner")
	if err := errors.Join(os.Remove(current), os.Symlink(".", current), os.RemoveAll(dir)); err != nil { // the newest one
		t.Fatal(err)
	}
	i.mustFail("set $PWD to a link")
	i.stop()
}

// TestPath starts a service by its name alone, and has it go elsewhere.
func TestPath(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{Chdir: "/"}, "", "app")
		if err := os.Remove(i.app); err != nil {
			t.Fatal(err)
		}
		i.mustFail(i.app + " is gone")
		copyBinary(t, i.app)
		i.mustCommit()
		i.runs(i.app)
		i.stop()
	})
}

// TestWorkingDirectory removes the folder that a service was started in.
func TestWorkingDirectory(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		dir := testenv.ShortDir(t)
		i.run(variation{}, dir, i.app)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		i.mustFail("the working directory of the successor is not accessible")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if r := i.mustCommit(); len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "the same program file") {
			t.Errorf("of the same program file the report says %q", r.Warnings)
		}
		i.stop()
	})
}

// TestPID1 upgrades a service that is PID 1 of its PID namespace: it refuses,
// says what to do, and serves on.
func TestPID1(t *testing.T) {
	testenv.Need(t, "unshare_pid")
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}})
		cmd := s.varied(variation{})
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		s.startCommand(cmd)
		if m := s.wait("owner"); m.PID != 1 {
			t.Fatalf("the service is process %d, want 1", m.PID)
		}
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		// Not by the PID file: 1 is another process here.
		if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the upgrade is refused", func() bool {
			log := s.log()
			return strings.Contains(log, "not supported: this process is PID 1") && strings.Contains(log, "`baton run`")
		})
		mustAnswer(t, addr, 1)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.wait("exit")
	})
}

// goRunMain is a service, as small as it gets, for `go run`.
const goRunMain = `package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

func say(kind, err string) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"PID": os.Getpid(), "Kind": kind, "Err": err})
}

func main() {
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Mode(os.Args[1]), ControlSocket: filepath.Join(os.Args[2], "ctl", "s"), PIDFile: filepath.Join(os.Args[2], "pid"),
		Probation: time.Millisecond,
		OnEvent: func(e handoff.Event) { say(string(e.Kind), e.Reason) },
	})
	if err != nil {
		panic(err)
	}
	ln, err := up.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			_ = c.Close()
		}
	}()
	if err := up.Ready(); err != nil {
		panic(err)
	}
	<-up.Done()
	if err := up.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	say("exit", "")
}
`

// TestGoRun upgrades a service that was started by go run, which removes the
// program when the first process ends.
func TestGoRun(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		testenv.Long(t, "handoff/internal/spawn.TestAdvice") // the programs are built
		s := newService(t, settings{Mode: mode})
		main := filepath.Join(s.set.Dir, "main.go")
		if err := os.WriteFile(main, []byte(goRunMain), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(goTool, "build", "-buildvcs=false", "-o", os.DevNull, main).CombinedOutput(); err != nil {
			t.Fatalf("go build, which may take a while: %v: %s", err, out)
		}
		cmd := exec.Command(goTool, "run", main, string(mode), s.set.Dir)
		// The settings mark the processes as the service's.
		cmd.Env = append(os.Environ(), jsonEnv(t, envSettings, s.set), "GOWORK=off", "GOFLAGS=-buildvcs=false")
		s.startCommand(cmd)
		s.wait("owner")
		s.upgrade()
		s.wait("exit")
		eventually(t, "go run has ended", func() bool { return !s.alive(cmd.Process.Pid) })
		s.mustFail("`go run` removes its binary", "build with `go build`")
		s.stop()
	})
}
