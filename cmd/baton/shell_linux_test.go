package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// operatePage is the page about the command.
const operatePage = "../../docs/operate.md"

// fenced returns a page's code blocks in a language.
func fenced(t *testing.T, name, language string) []string {
	t.Helper()
	var blocks []string
	for _, b := range strings.Split(readPage(t, name), "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(b, "\n```")
		blocks = append(blocks, block)
	}
	return blocks
}

// shell is a shell in a folder with the programs api and api.new, which are helpers of
// this test, and with baton, which finds their control sockets there.
type shell struct {
	t   *testing.T
	dir string
	in  io.WriteCloser
	out *bufio.Reader
}

func newShell(t *testing.T, helper string, env ...string) *shell {
	t.Helper()
	dir := t.TempDir()
	marked := func(name string) (exe, marker string) {
		cmd := testmain.Command(t, name)
		for _, kv := range cmd.Env {
			if strings.HasPrefix(kv, "BATON_TEST_HELPER=") {
				marker = kv
			}
		}
		return cmd.Path, marker
	}
	exe, service := marked(helper)
	_, baton := marked("baton")
	for _, name := range []string{"api", "api.new"} {
		testenv.CopyProgram(t, exe, filepath.Join(dir, name))
	}
	// The services' control sockets are not in root's folder.
	script := fmt.Sprintf(`#!/bin/sh
for a; do
	shift
	case $a in
		api*) set -- "$@" --socket %q/c/$a/s ;;
		*) set -- "$@" "$a" ;;
	esac
done
%s exec %q "$@"
`, dir, baton, exe)
	testenv.Program(t, filepath.Join(dir, "baton"), []byte(script))
	sh := exec.CommandContext(t.Context(), "sh")
	sh.Dir = dir
	sh.Env = append(append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), service, "BATON_TEST_SCRIPT="+dir, "GORACE=atexit_sleep_ms=0"), env...)
	sh.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // the service keeps the other end, so Wait must not wait for it
	if err != nil {
		t.Fatal(err)
	}
	sh.Stdout, sh.Stderr = w, w
	err = sh.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(errors.Join(err, r.Close()))
	}
	t.Cleanup(func() {
		killAll(dir)
		_ = sh.Wait() // killed, or ended
		_ = r.Close()
	})
	return &shell{t, dir, in, bufio.NewReader(r)}
}

// do runs a line in the shell and returns what it printed.
func (s *shell) do(line string) string {
	s.t.Helper()
	const mark = "end of the line:"
	if _, err := fmt.Fprintf(s.in, "%s\necho %q $?\n", line, mark); err != nil {
		s.t.Fatal(err)
	}
	var said strings.Builder
	for {
		text, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: %v\n%s", line, err, said.String())
		}
		if status, ok := strings.CutPrefix(text, mark); ok {
			if strings.TrimSpace(status) != "0" {
				s.t.Fatalf("%s: exit status %s%s", line, strings.TrimSpace(status), said.String())
			}
			return said.String()
		}
		said.WriteString(text)
	}
}

// answers waits until a service answers.
func (s *shell) answers(name string) {
	s.t.Helper()
	s.do(fmt.Sprintf(`n=0; until baton status %s >/dev/null 2>&1 || [ $n -gt 400 ]; do n=$((n + 1)); sleep 0.05; done`, name))
}

// end returns the rest of the output, after the last process has ended.
func (s *shell) end() string {
	s.t.Helper()
	if err := s.in.Close(); err != nil {
		s.t.Error(err)
	}
	rest, err := io.ReadAll(s.out)
	if err != nil {
		s.t.Error(err)
	}
	return string(rest)
}

// TestPageShell runs the section on shells, with a service called api. A
// line that starts a service in the background counts as done when the service answers.
func TestPageShell(t *testing.T) {
	t.Parallel()
	blocks := fenced(t, operatePage, "sh")
	if len(blocks) == 0 || !strings.Contains(blocks[0], "./api &") {
		t.Fatal("the page has no section for a shell")
	}
	s := newShell(t, "service", envService+"=takeover 20ms "+filepath.Join("c", "api", "s"))
	var said strings.Builder
	for line := range strings.Lines(blocks[0]) {
		said.WriteString(s.do(strings.TrimSpace(line)))
		if regexp.MustCompile(`&\s*(#|$)`).MatchString(line) {
			s.answers("api")
		}
	}
	said.WriteString(s.end())
	for _, want := range []string{"serving  generation 2", "1 committed, 0 rolled back, 0 failed"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in:\n%s", want, said.String())
		}
	}
}
