package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// line is a line in the log of baton run.
type line struct {
	Message    string `json:"@message"`
	Generation int
	PID        int
	Address    string
	Status     string
	Error      string
	Why        string
	Restarts   int
}

// running is a baton run under test.
type running struct {
	t     *testing.T
	dir   string // its working directory
	cmd   *exec.Cmd
	lines chan line
	read  sync.WaitGroup
	text  strings.Builder // of the log; valid once read has ended
	ended bool
}

// runApp starts baton run with flags and an app. wrap, if not nil, changes the command
// first.
func runApp(t *testing.T, wrap func(*exec.Cmd), flags []string, app ...string) *running {
	t.Helper()
	r := &running{t: t, dir: testenv.ShortDir(t), lines: make(chan line, 10000)}
	r.cmd = testmain.Command(t, "baton", append(append([]string{"run", "--json", "-v"}, flags...), append([]string{"--"}, app...)...)...)
	r.cmd.Dir = r.dir
	r.cmd.Env = append(r.cmd.Environ(), "BATON_TEST_SCRIPT="+r.dir, "GORACE=atexit_sleep_ms=0")
	if wrap != nil {
		wrap(r.cmd)
	}
	pipe, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.read.Go(func() { // ends with the last process that has the pipe
		scan := bufio.NewScanner(pipe)
		for scan.Scan() {
			var l line
			if json.Unmarshal(scan.Bytes(), &l) == nil && l.Message != "" {
				r.lines <- l
			}
			fmt.Fprintln(&r.text, scan.Text())
		}
		close(r.lines)
	})
	t.Cleanup(func() {
		killAll(r.dir)
		r.wait()
		if t.Failed() {
			t.Logf("log of baton run:\n%s", r.text.String())
		}
	})
	return r
}

// goApp is the command line of an app of a kind.
func goApp(t *testing.T, kind string) []string {
	t.Helper()
	cmd := testmain.Command(t, "app")
	return []string{"env", cmd.Env[len(cmd.Env)-1], cmd.Path, kind}
}

// wait waits for the end, once.
func (r *running) wait() int {
	if !r.ended {
		r.ended = true
		r.read.Wait()
		_ = r.cmd.Wait() // ProcessState has the status
	}
	return r.cmd.ProcessState.ExitCode()
}

// await returns the next line with a message, and drops the lines before it.
func (r *running) await(message string) line {
	r.t.Helper()
	return r.awaitLine(message, func(line) bool { return true })
}

func (r *running) awaitLine(message string, is func(line) bool) line {
	r.t.Helper()
	return r.awaitAny(func(l line) bool { return l.Message == message && is(l) }, message)
}

func (r *running) awaitAny(is func(line) bool, what string) line {
	r.t.Helper()
	timer := time.NewTimer(2 * patience)
	defer timer.Stop()
	for {
		select {
		case l, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("baton run ended without logging %q", what)
			}
			if is(l) {
				return l
			}
		case <-timer.C:
			r.t.Fatalf("baton run did not log %q", what)
		}
	}
}

// awaitAll waits for lines with these messages, in any order, and returns them by message.
func (r *running) awaitAll(messages ...string) map[string]line {
	r.t.Helper()
	found := make(map[string]line)
	for len(messages) > 0 {
		l := r.awaitAny(func(l line) bool { return slices.Contains(messages, l.Message) }, fmt.Sprint(messages))
		messages = slices.DeleteFunc(messages, func(m string) bool { return m == l.Message })
		found[l.Message] = l
	}
	return found
}

// address returns the address of the next socket.
func (r *running) address() string {
	r.t.Helper()
	_, address, _ := strings.Cut(r.await("socket").Address, " ")
	return address
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// stop ends baton run gracefully and expects status 0.
func (r *running) stop() {
	r.t.Helper()
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		r.t.Errorf("baton run ended with %d, want 0", code)
	}
}

// write writes a file into the app's folder.
func (r *running) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// pressed is a load in progress.
type pressed struct {
	t      *testing.T
	cancel func()
	stats  chan load.Stats
	seen   chan load.Stats // capacity 1: the latest
}

// press starts clients that ask questions at an address and never retry.
func press(t *testing.T, address string, kinds ...load.Kind) *pressed {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pressed{t: t, cancel: cancel, stats: make(chan load.Stats, 1), seen: make(chan load.Stats, 1)}
	cfg := load.Config{
		Timeout: patience, Every: 20 * time.Millisecond, Pause: 5 * time.Millisecond, Questions: 10,
		Progress: func(s load.Stats) {
			select {
			case <-p.seen:
			default:
			}
			p.seen <- s
		},
	}
	for _, k := range kinds {
		cfg.Targets = append(cfg.Targets, load.Target{Name: string(k), Kind: k, Network: "tcp", Address: address, Workers: 4})
	}
	go func() { // ends with cancel, for which Cleanup waits
		s, err := load.Run(ctx, cfg)
		if err != nil {
			t.Error(err)
		}
		p.stats <- s
		close(p.stats)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.stats
	})
	return p
}

// until waits until the clients' counts are enough.
func (p *pressed) until(what string, enough func(load.Stats) bool) load.Stats {
	p.t.Helper()
	timer := time.NewTimer(2 * patience)
	defer timer.Stop()
	for {
		select {
		case s := <-p.seen:
			if enough(s) {
				return s
			}
		case <-timer.C:
			p.t.Fatalf("the clients have not seen %s", what)
		}
	}
}

// more waits for n more answers.
func (p *pressed) more(n uint64) {
	p.t.Helper()
	from := p.until("anything", func(load.Stats) bool { return true }).Questions
	p.until("more answers", func(s load.Stats) bool { return s.Questions >= from+n })
}

// end ends the load and returns its counts.
func (p *pressed) end() load.Stats {
	p.cancel()
	return <-p.stats
}

// clean expects no failure.
func (p *pressed) clean() load.Stats {
	p.t.Helper()
	s := p.end()
	if s.Failed > 0 {
		p.t.Errorf("%d of %d connections failed: %v %+v", s.Failed, s.Connections, s.Failures, s.Samples)
	}
	return s
}

// gone waits until no process of the app or of baton is left, but for some.
func gone(t *testing.T, dir string, but ...int) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		left := 0
		for _, pid := range procs.Marked(scriptMark(dir)) {
			if !slices.Contains(but, pid) {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d processes are left", left)
		}
		<-time.After(5 * time.Millisecond) // no event to wait for
	}
}
