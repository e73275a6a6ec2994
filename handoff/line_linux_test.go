package handoff_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

// A service is a line of processes under test.
type service struct {
	tb    testing.TB
	set   settings
	netns *netlab.Namespace // of its processes; nil means the test's
	cmd   *exec.Cmd
	line  *testservice.Line[message]
}

// newService prepares a service in a folder of its own.
func newService(tb testing.TB, set settings) *service {
	tb.Helper()
	if set.Dir == "" {
		set.Dir = testenv.ShortDir(tb)
	}
	if set.Probation == 0 {
		set.Probation = 100 * time.Millisecond
	}
	set.Line = fmt.Sprintf("%s#%d", set.Dir, lines.Add(1))
	s := &service{tb: tb, set: set}
	s.line = testservice.New[message](s.mark())
	tb.Cleanup(func() {
		s.line.Kill()
		if tb.Failed() {
			tb.Logf("log of the service:\n%s", s.log())
		}
	})
	return s
}

var lines atomic.Int64 // of newService

// log returns the standard error of all processes.
func (s *service) log() string { return s.line.Log() }

// command returns the command line of a process of the service.
func (s *service) command() *exec.Cmd { return s.commandFor("service") }

func (s *service) commandFor(helper string) *exec.Cmd {
	s.tb.Helper()
	b, err := json.Marshal(s.set)
	if err != nil {
		s.tb.Fatal(err)
	}
	cmd := testmain.Command(s.tb, helper)
	// Under the race detector os.Exit takes a second by default.
	cmd.Env = append(cmd.Environ(), envSettings+"="+string(b), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// foldersOf makes folders of other users than the test's: that of the control socket
// belongs to the user ctl, that of the PID file to the user pid.
func (s *service) foldersOf(ctl, pid int) {
	s.tb.Helper()
	s.set.Run = "run"
	err := os.Chmod(s.set.Dir, 0o711)
	for path, uid := range map[string]int{filepath.Dir(controlOf(s)): ctl, filepath.Dir(s.set.pidFile()): pid} {
		err = errors.Join(err, os.Mkdir(path, 0o700), os.Chown(path, uid, uid))
	}
	if err != nil {
		s.tb.Fatal(err)
	}
}

// commandAs is command for another user, with folders of that user.
func (s *service) commandAs(uid uint32) *exec.Cmd {
	s.tb.Helper()
	s.foldersOf(int(uid), int(uid))
	cmd := s.command()
	program := filepath.Join(s.set.Dir, "program") // where others can reach it
	testenv.CopyProgram(s.tb, cmd.Path, program)
	cmd.Path = program
	cmd.Args[0] = cmd.Path // its successors are the same program
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// start starts the first process and waits until it owns its sockets.
func (s *service) start() *service {
	s.tb.Helper()
	s.startCommand(s.command())
	s.wait("owner")
	return s
}

// startCommand starts a process. Its lines and those of its successors are the
// service's.
func (s *service) startCommand(cmd *exec.Cmd) {
	s.tb.Helper()
	s.cmd = cmd
	start := cmd.Start
	if s.netns != nil {
		start = func() (err error) {
			s.netns.Do(func() { err = cmd.Start() })
			return err
		}
	}
	if err := s.line.Start(cmd, start); err != nil {
		s.tb.Fatal(err)
	}
}

// mark is in the environment of the service's processes, and of no other's.
func (s *service) mark() string { return strconv.Quote(s.set.Line) }

// alive reports whether pid is a process of the service that runs.
func (s *service) alive(pid int) bool { return procs.Has(pid, s.mark()) }

// patience bounds each wait for a process.
const patience = time.Minute

// wait waits for a message of a kind that no other wait has had.
func (s *service) wait(kind string) message {
	s.tb.Helper()
	return s.waitFor(kind, func(m message) bool { return m.Kind == kind })
}

func (s *service) waitFor(what string, ok func(message) bool) message {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := s.line.Take(ctx, ok)
	if err != nil {
		s.tb.Fatalf("no %q within %v: %v", what, patience, err)
	}
	return m
}

func (s *service) received() []message { return s.line.Messages() }

// plan sets the plan of the next process.
func (s *service) plan(p plan) {
	s.tb.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.set.Dir, "plan"), b, 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

// let resumes a process that waits.
func (s *service) let() {
	s.tb.Helper()
	if err := os.WriteFile(filepath.Join(s.set.Dir, "go"), nil, 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

// pid returns the process ID in the PID file.
func (s *service) pid() int {
	s.tb.Helper()
	b, err := os.ReadFile(s.set.pidFile())
	if err != nil {
		s.tb.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// signal sends a signal to the process that serves.
func (s *service) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := syscall.Kill(s.pid(), sig); err != nil {
		s.tb.Fatal(err)
	}
}

// upgrade triggers an upgrade and waits for its commit.
func (s *service) upgrade() message {
	s.tb.Helper()
	s.signal(syscall.SIGUSR2)
	m := s.waitFor("committed", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" })
	if m.Kind != "committed" {
		s.tb.Fatalf("upgrade failed: %s\nlog:\n%s", m.Err, s.log())
	}
	return m
}

// stop ends the service and checks that nothing is left of it.
func (s *service) stop() {
	s.tb.Helper()
	s.signal(syscall.SIGTERM)
	s.wait("exit")
	s.gone(s.pidsSeen()...)
	if _, err := os.Stat(s.set.pidFile()); !errors.Is(err, os.ErrNotExist) {
		s.tb.Errorf("PID file after the end: %v, want none", err)
	}
	for _, name := range []string{"s", "s.lock"} {
		if _, err := os.Lstat(filepath.Join(s.set.Dir, "ctl", name)); !errors.Is(err, os.ErrNotExist) {
			s.tb.Errorf("ctl/%s after the end: %v, want none", name, err)
		}
	}
}

func (s *service) pidsSeen() []int {
	var pids []int
	for _, m := range s.received() {
		if !slices.Contains(pids, m.PID) {
			pids = append(pids, m.PID)
		}
	}
	return pids
}

// gone waits until none of the processes runs.
func (s *service) gone(pids ...int) {
	s.tb.Helper()
	eventually(s.tb, "processes are gone", func() bool {
		return !slices.ContainsFunc(pids, s.alive)
	})
}

// eventually waits for a condition that no event announces.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// ask sends a line over a new connection and returns the generation that answers.
func ask(network, address string) (uint64, error) {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return askOver(c, "hello")
}

// askOver sends a line over c and returns the generation that answers.
func askOver(c net.Conn, word string) (uint64, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintln(c, word); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, err
	}
	gen, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if rest != word {
		return 0, fmt.Errorf("answer %q, want %q", rest, word)
	}
	return strconv.ParseUint(gen, 10, 64)
}
