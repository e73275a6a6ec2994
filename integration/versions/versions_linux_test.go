package versions_test

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
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

// message is a line that a process of the demo has written. Clients write their counts.
type message struct {
	Kind    string
	Version string
	load.Stats
}

// service is a line of processes of the demo's service.
type service struct {
	t        *testing.T
	bin, dir string
	path     string // what is started
	line     *testservice.Line[message]
}

// spawn starts a program in a line of its own. Closing stdin ends it; it ends with the
// test at the latest.
func (s *service) spawn(path string, args ...string) (line *testservice.Line[message], stdin *os.File) {
	s.t.Helper()
	in, stdin, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Env = in, append(os.Environ(), "BATON_VERSIONS="+s.dir)
	line = testservice.New[message]("BATON_VERSIONS=" + s.dir + "\x00")
	s.t.Cleanup(func() {
		_ = stdin.Close() // the second time for one that was stopped
		line.Kill()
	})
	err = line.Start(cmd, nil)
	_ = in.Close() // the program's
	if err != nil {
		s.t.Fatal(err)
	}
	return line, stdin
}

// until waits until ok says so of what a line has written.
func (s *service) until(line *testservice.Line[message], what string, ok func(all []message, runs bool) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := line.Until(ctx, ok); err != nil {
		s.t.Fatalf("%s: not within %v: %v", what, patience, err)
	}
}

func start(t *testing.T, bin string, mode handoff.Mode) *service {
	t.Helper()
	s := &service{t: t, bin: bin, dir: testenv.ShortDir(t)}
	s.path = filepath.Join(s.dir, "server")
	s.install("old")
	s.line, _ = s.spawn(s.path, "serve", "-until-eof", "-mode", string(mode), "-dir", filepath.Join(s.dir, "run"), "-probation", "100ms")
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

// serving waits until a process of this version serves, and no other has replaced it.
func (s *service) serving(version string) {
	s.t.Helper()
	s.until(s.line, version+" serves", func(all []message, runs bool) bool {
		for _, m := range slices.Backward(all) {
			if m.Kind == "serving" {
				return m.Version == version
			}
		}
		return !runs
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
	line  *testservice.Line[message]
	stdin *os.File
}

// load starts clients, and waits until each has been answered.
func (s *service) load(program string) *clients {
	s.t.Helper()
	c := &clients{s: s}
	c.line, c.stdin = s.spawn(program, "load", "-dir", filepath.Join(s.dir, "run"), "-workers", "2", "-every", "100ms")
	s.until(c.line, "first answers", func(all []message, runs bool) bool {
		last := latest(all)
		for _, target := range last.Targets {
			if target.AnsweredLast == "" {
				return !runs
			}
		}
		return !runs || len(last.Targets) > 0
	})
	return c
}

func latest(all []message) (last message) {
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	return last
}

// stop ends clients and service, and returns what the clients have counted.
func (c *clients) stop() load.Stats {
	c.s.t.Helper()
	_ = c.stdin.Close() // what ends them
	ended := func(_ []message, runs bool) bool { return !runs }
	c.s.until(c.line, "end of the clients", ended)
	last := latest(c.line.Messages())
	if last.Kind != "final" {
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
	c.s.until(c.s.line, "end of the service", ended)
	return last.Stats
}
