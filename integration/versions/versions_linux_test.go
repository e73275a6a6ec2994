package versions_test

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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// oldest is the oldest commit that this tree hands over to and from: the first with
// the messages of version 0.1.
const oldest = "f709e24a392f2ff4be127852296db1cf74440144"

const patience = 60 * time.Second

// TestOldest upgrades the oldest supported version's demo service to this
// tree's, back, and to this tree's again, in each mode, under clients that are a
// process of their own and try nothing twice.
func TestOldest(t *testing.T) {
	testenv.Long(t, "handoff/internal/wire.TestGolden")
	// The checkout may be another user's.
	git := []string{"git", "-c", "safe.directory=*"}
	if err := exec.Command(git[0], append(git[1:], "cat-file", "-e", oldest+"^{commit}")...).Run(); err != nil {
		testmain.Skipped()
		t.Skipf("commit %.12s is not here: no clone, or a shallow one (git fetch --unshallow makes it whole): %v", oldest, err)
	}
	root := strings.TrimSpace(run(t, ".", "", append(git, "rev-parse", "--show-toplevel")...))
	dir := testenv.ShortDir(t)
	tree := filepath.Join(dir, "tree") + "/"
	index := "GIT_INDEX_FILE=" + filepath.Join(dir, "index")
	run(t, root, index, append(git, "read-tree", oldest)...)
	run(t, root, index, append(git, "checkout-index", "--all", "--prefix="+tree)...)
	bin := filepath.Join(dir, "bin")
	for version, root := range map[string]string{"old": tree, "new": root} {
		run(t, root, "", "go", "build", "-buildvcs=false", "-ldflags", "-X main.version="+version, "-o", filepath.Join(bin, version), "./cmd/baton-demo")
		run(t, root, "", "go", "build", "-buildvcs=false", "-o", filepath.Join(bin, "baton-"+version), "./cmd/baton")
	}
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := start(t, bin, mode)
			clients := s.load(filepath.Join(bin, "new"))
			// Each command upgrades services of both.
			for i, to := range []string{"new", "old", "new", "old"} {
				s.upgrade(to, []string{"old", "new"}[i/2])
			}
			st := clients.stop()
			for _, f := range st.Samples {
				t.Errorf("after %.2f s: %s: %s: %s", f.Seconds, f.Target, f.Step, f.Error)
			}
			if st.Failed != 0 || st.Connections == 0 || st.AnsweredLast != "old" || st.Crossed == 0 {
				t.Errorf("%d of %d failed, %q answered last, %d open connections served across an upgrade", st.Failed, st.Connections, st.AnsweredLast, st.Crossed)
			}
			t.Logf("%d connections, %d failed", st.Connections, st.Failed)
		})
	}
}

// run runs a command in dir, with one more variable in its environment.
func run(t *testing.T, dir, env string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = os.Environ()
	if env != "" {
		cmd.Env = append(cmd.Env, env)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// service is a line of processes of the demo's service.
type service struct {
	t         *testing.T
	bin, dir  string
	path      string // what is started
	lines     *lines
	processes sync.WaitGroup
}

// lines are what processes have written, a line each.
type lines struct {
	mu   sync.Mutex
	all  [][]byte
	news chan struct{}
	over bool
}

// read reads to the end of r.
func (l *lines) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for more := true; more; {
		more = sc.Scan()
		l.mu.Lock()
		if more {
			l.all = append(l.all, bytes.Clone(sc.Bytes()))
		} else {
			l.over = true
		}
		close(l.news)
		l.news = make(chan struct{})
		l.mu.Unlock()
	}
}

// until waits until ok says so of what there is.
func (l *lines) until(t *testing.T, what string, ok func([][]byte, bool) bool) {
	t.Helper()
	limit := time.After(patience)
	for {
		l.mu.Lock()
		done, news := ok(l.all, l.over), l.news
		l.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-limit:
			t.Fatalf("%s: not within %v; received:\n%s", what, patience, bytes.Join(l.all, []byte("\n")))
		}
	}
}

// spawn starts a program that ends with the test, and reads its lines.
func (s *service) spawn(path string, args ...string) (*exec.Cmd, *os.File, *lines) {
	s.t.Helper()
	in, stdin, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, w, os.Stderr
	err = cmd.Start()
	_, _ = in.Close(), w.Close() // the program's
	if err != nil {
		s.t.Fatal(err)
	}
	l := &lines{news: make(chan struct{})}
	s.processes.Go(func() { // ends with all who write there
		defer out.Close()
		l.read(out)
	})
	s.t.Cleanup(func() { _ = stdin.Close() }) // the second time for one that was stopped
	s.processes.Go(func() { _ = cmd.Wait() })
	return cmd, stdin, l
}

func start(t *testing.T, bin string, mode handoff.Mode) *service {
	t.Helper()
	s := &service{t: t, bin: bin, dir: testenv.ShortDir(t)}
	s.path = filepath.Join(s.dir, "server")
	t.Cleanup(s.processes.Wait)
	s.install("old")
	// Without standard input they end.
	_, _, s.lines = s.spawn(s.path, "serve", "-until-eof", "-mode", string(mode), "-dir", filepath.Join(s.dir, "run"), "-probation", "100ms")
	s.serving("old")
	return s
}

// install puts a version where the service is started from.
func (s *service) install(version string) {
	s.t.Helper()
	tmp := s.path + ".tmp"
	if err := errors.Join(os.Link(filepath.Join(s.bin, version), tmp), os.Rename(tmp, s.path)); err != nil {
		s.t.Fatal(err)
	}
}

// serving waits until a process of this version, whom no other has replaced,
// serves.
func (s *service) serving(version string) {
	s.t.Helper()
	s.lines.until(s.t, version+" serves", func(all [][]byte, over bool) bool {
		for _, line := range slices.Backward(all) {
			var m struct{ Kind, Version string }
			if json.Unmarshal(line, &m) == nil && m.Kind == "serving" {
				return m.Version == version
			}
		}
		return over
	})
}

// upgrade has the command of one version upgrade the service to another.
func (s *service) upgrade(to, by string) {
	s.t.Helper()
	s.install(to)
	run(s.t, s.dir, "", filepath.Join(s.bin, "baton-"+by), "upgrade", "--plain", "--wait=linger", "--timeout", patience.String(),
		"--socket", filepath.Join(s.dir, "run", "control", "sock"))
	s.serving(to)
}

// clients are the demo's.
type clients struct {
	s     *service
	stdin *os.File
	lines *lines
}

// load starts clients, and waits until each has been answered.
func (s *service) load(program string) *clients {
	s.t.Helper()
	c := &clients{s: s}
	_, c.stdin, c.lines = s.spawn(program, "load", "-dir", filepath.Join(s.dir, "run"), "-workers", "2", "-every", "100ms")
	c.lines.until(s.t, "first answers", func(all [][]byte, over bool) bool {
		st, _ := latest(all)
		for _, target := range st.Targets {
			if target.AnsweredLast == "" {
				return over
			}
		}
		return over || len(st.Targets) > 0
	})
	return c
}

func latest(all [][]byte) (st load.Stats, final bool) {
	var m struct {
		Kind string
		load.Stats
	}
	if len(all) == 0 || json.Unmarshal(all[len(all)-1], &m) != nil {
		return st, false
	}
	return m.Stats, m.Kind == "final"
}

// stop ends clients and service, and returns what the clients have counted.
func (c *clients) stop() (st load.Stats) {
	c.s.t.Helper()
	_ = c.stdin.Close() // what ends them
	c.lines.until(c.s.t, "end of the clients", func(all [][]byte, over bool) bool { return over })
	st, final := latest(c.lines.all)
	if !final {
		c.s.t.Error("the clients have ended without a result")
	}
	var pid int
	b, err := os.ReadFile(filepath.Join(c.s.dir, "run", "pid"))
	if err == nil {
		_, err = fmt.Sscan(string(b), &pid)
	}
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGTERM)
	}
	if err != nil {
		c.s.t.Error(err)
	}
	c.s.lines.until(c.s.t, "end of the service", func(_ [][]byte, over bool) bool { return over })
	return st
}
