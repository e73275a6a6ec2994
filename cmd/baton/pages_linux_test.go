package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// firstWrite calls cancel at the first write.
type firstWrite struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	cancel func()
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
	return w.buf.Write(p)
}

// pages returns the text of README.md and of the pages in docs, in this order.
func pages(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	var all strings.Builder
	for _, name := range append([]string{"../../README.md"}, names...) {
		all.WriteString(readPage(t, name))
	}
	return all.String()
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPages runs each command line of baton's in README.md and docs, in their order.
func TestPages(t *testing.T) {
	t.Parallel()
	text := pages(t)
	dir := t.TempDir()
	service := testmain.Command(t, "service", "takeover", "20ms", filepath.Join("api", "s"))
	service.Dir = dir
	service.Env = append(service.Environ(), "BATON_TEST_SCRIPT="+dir, "GORACE=atexit_sleep_ms=0")
	service.SysProcAttr.Pdeathsig = syscall.SIGKILL
	out, err := service.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killAll(dir)
		_ = service.Wait() // killed, or replaced
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for line := range strings.Lines(text) {
		line, is := strings.CutPrefix(line, "    baton ")
		if !is {
			continue
		}
		line, _, _ = strings.Cut(line, "#")
		args := strings.Fields(strings.NewReplacer("'error rate'", "errors").Replace(line))
		if strings.ContainsAny(line, `"'|&;<>$`) && !strings.Contains(line, "'error rate'") {
			t.Fatalf("this test is no shell: %s", line)
		}
		if args[0] == "run" {
			runPage(t, args[1:])
			ran++
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		w := &firstWrite{}
		if strings.Contains(line, "--watch") || strings.Contains(line, "--follow") {
			w.cancel = cancel
		}
		a := newApp(w)
		a.sockets = filepath.Join(dir, "*", "s")
		root := a.command()
		root.SetArgs(args)
		err := root.ExecuteContext(ctx)
		cancel()
		if args[0] == "rollback" && errors.Is(err, handoff.ErrNoUpgrade) {
			err = nil // there is nothing to take back by now
		}
		if err != nil {
			t.Errorf("baton %q: %v", args, err)
		}
		if args[0] != "rollback" && w.buf.Len() == 0 {
			t.Errorf("baton %q printed nothing", args)
		}
		ran++
	}
	if ran < 8 {
		t.Errorf("the pages have %d command lines, want at least 8", ran)
	}
}

// runPage runs a line of baton run's with an address of the test's and apps of
// its own, and upgrades the app.
func runPage(t *testing.T, args []string) {
	t.Helper()
	dash := slices.Index(args, "--")
	if dash < 0 {
		t.Fatalf("baton run %q has no --", args)
	}
	address := freeAddress(t)
	flags := strings.Join(args[:dash], " ")
	flags = strings.NewReplacer("127.0.0.1:8080", address, "tcp://:8080", "tcp://"+address, "--name api", "--socket c/s").Replace(flags)
	var app []string
	switch text := strings.Join(args[dash+1:], " "); text {
	case "python3 app.py":
		if _, err := exec.LookPath("python3"); err != nil {
			t.Logf("baton run %q is left out: %v", args, err)
			return
		}
		path, err := filepath.Abs("testdata/app.py")
		if err != nil {
			t.Fatal(err)
		}
		app = []string{"python3", path}
	case "/usr/local/bin/api":
		app = goApp(t, "takeover")
	default:
		t.Fatalf("this test has no app for baton run %q", args)
	}
	r := runApp(t, nil, strings.Fields(flags), app...)
	r.await("ready")
	r.signal(syscall.SIGUSR2)
	r.await("upgraded")
	r.stop()
}
