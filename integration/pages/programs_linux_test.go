package pages_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

const patience = 60 * time.Second

// programs returns the whole programs of a page, in their order.
func programs(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, block := range strings.Split(string(text), "```go\n")[1:] {
		if block, _, _ = strings.Cut(block, "```"); strings.HasPrefix(block, "package main\n") {
			all = append(all, block)
		}
	}
	return all
}

// A site is a folder in which a program of a page is installed and runs, at an address
// and with a control socket of the test's.
type site struct {
	t       *testing.T
	dir     string
	address string
	line    *testservice.Line[struct{}]
	built   map[string]string // the files of the programs
}

func newSite(t *testing.T) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: testenv.ShortDir(t), address: ln.Addr().String(), built: make(map[string]string)}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	s.line = testservice.New[struct{}](strconv.Quote(s.dir))
	t.Cleanup(func() {
		s.line.Kill()
		if t.Failed() {
			t.Logf("standard error of the service:\n%s", s.line.Log())
		}
	})
	return s
}

// install puts a program into the place of the next version.
func (s *site) install(program string) {
	s.t.Helper()
	if s.built[program] == "" {
		s.built[program] = s.build(program)
	}
	path := filepath.Join(s.dir, "api")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	if err := os.Link(s.built[program], path); err != nil {
		s.t.Fatal(err)
	}
}

// build returns the file of the program.
func (s *site) build(program string) string {
	s.t.Helper()
	text := program
	for old, replacement := range map[string]string{
		`":8080"`:     strconv.Quote(s.address),
		`Name: "api"`: `ControlSocket: "ctl/s"`,
	} {
		text = strings.ReplaceAll(text, old, replacement)
	}
	file := filepath.Join(s.dir, fmt.Sprintf("version%d", len(s.built)+1))
	if err := os.WriteFile(file+".go", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	build := exec.CommandContext(s.t.Context(), "go", "build", "-o", file, file+".go")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("go build: %v\n%s\n%s", err, out, text)
	}
	return file
}

// start starts the first version and returns its process.
func (s *site) start() int {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.dir, "api"))
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "BATON_SITE="+strconv.Quote(s.dir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.line.Start(cmd, nil); err != nil {
		s.t.Fatal(err)
	}
	return s.other(0, func() {})
}

// other waits until a process that is not pid answers on a new connection, and returns
// that process. It calls again from time to time.
func (s *site) other(pid int, again func()) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if now, err := post(ctx, client, s.address); err == nil && now != pid {
			return now
		} else if ctx.Err() != nil {
			s.t.Fatalf("no process but %d answers: %v", pid, err)
		}
		if n%10 == 0 {
			again()
		}
		<-tick.C
	}
}

// upgrade sends the signal until another process than pid answers: one that is in
// probation refuses it.
func (s *site) upgrade(pid int, sig syscall.Signal) int {
	s.t.Helper()
	return s.other(pid, func() {
		if err := syscall.Kill(pid, sig); err != nil {
			s.t.Fatal(err)
		}
	})
}

// end waits until pid is the only process, and ends it. Earlier it would be in probation,
// and its predecessor would serve again.
func (s *site) end(pid int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !slices.Equal(procs.Marked(strconv.Quote(s.dir)), []int{pid}) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("processes %v are left, want only %d", procs.Marked(strconv.Quote(s.dir)), pid)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.line.Wait()
}

// post asks for the process that answers. A body that can't be sent again keeps the
// client from repeating the request.
func post(ctx context.Context, client *http.Client, address string) (pid int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address, load.NewBody([]byte("x")))
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it is read
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(text), "process %d\n", &pid); err != nil {
		return 0, fmt.Errorf("answer %q: %w", text, err)
	}
	return pid, nil
}

// press sends requests on a kept connection until stop is called, which returns how
// many were sent and the errors of those that failed.
func (s *site) press() (stop func() (sent int64, err error)) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var sent atomic.Int64
	var failed error
	over := make(chan struct{})
	go func() { // ends with ctx
		defer close(over)
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for ctx.Err() == nil {
			_, err := post(context.WithoutCancel(ctx), client, s.address)
			sent.Add(1)
			failed = errors.Join(failed, err)
		}
	}()
	return func() (int64, error) {
		cancel()
		<-over
		return sent.Load(), failed
	}
}

// TestPrograms builds each program of the pages. Those that use Baton are upgraded three
// times, each time by the same program, while a client sends requests on a connection
// that it keeps.
func TestPrograms(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append([]string{"README.md"}, pages...) {
		page = strings.TrimPrefix(page, "../../")
		for i, program := range programs(t, page) {
			found++
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(page), i+1), func(t *testing.T) {
				t.Parallel()
				if page != "README.md" {
					testenv.Long(t, "TestPrograms")
				}
				s := newSite(t)
				s.install(program)
				if !strings.Contains(program, "/baton/handoff\"") {
					return // a program before its migration
				}
				sig := syscall.SIGUSR2
				if strings.Contains(program, "syscall.SIGHUP") {
					sig = syscall.SIGHUP
				}
				pid := s.start()
				stop := s.press()
				for range testenv.Times(1, 3) {
					pid = s.upgrade(pid, sig)
				}
				if sent, err := stop(); err != nil || sent < 3 {
					t.Errorf("%d requests, failed: %v", sent, err)
				}
				s.end(pid)
			})
		}
	}
	if found < 6 {
		t.Errorf("the pages have %d whole programs, want at least 6", found)
	}
}

// TestMigrationFromTableflip upgrades the page's service on plain tableflip to the one on
// Baton, in place, and back.
func TestMigrationFromTableflip(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "TestPrograms")
	all := programs(t, "docs/migration.md")
	before, after := all[0], all[1]
	if !strings.Contains(before, "tableflip.New") || !strings.Contains(after, "handoff.Inherit") {
		t.Fatal("the page does not begin with a service on tableflip and one on Baton")
	}
	s := newSite(t)
	s.install(before)
	pid := s.start()
	for _, program := range []string{after, after, before, before} {
		s.install(program)
		pid = s.upgrade(pid, syscall.SIGHUP)
	}
}
