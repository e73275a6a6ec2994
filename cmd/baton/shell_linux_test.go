package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// fenced returns the README's blocks of a language.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range strings.Split(string(readme), "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(b, "\n```")
		blocks = append(blocks, block)
	}
	return blocks
}

// TestReadmeShell has a shell run the README's section for it, with a service
// called api. A line that starts something in the background is over when that
// answers.
func TestReadmeShell(t *testing.T) {
	t.Parallel()
	blocks := fenced(t, "sh")
	if len(blocks) == 0 || !strings.Contains(blocks[0], "./api &") {
		t.Fatal("the README has no section for a shell")
	}
	dir := t.TempDir()
	helper := func(name string) (exe, marker string) {
		cmd := testmain.Command(t, name)
		for _, kv := range cmd.Env {
			if strings.HasPrefix(kv, "BATON_TEST_HELPER=") {
				marker = kv
			}
		}
		return cmd.Path, marker
	}
	exe, service := helper("service")
	_, baton := helper("baton")
	for _, name := range []string{"api", "api.new"} {
		copyProgram(t, exe, filepath.Join(dir, name))
	}
	// The service's control socket is not where root's are.
	script := fmt.Sprintf(`#!/bin/sh
for a; do
	shift
	if [ "$a" = api ]; then set -- "$@" --socket %q; else set -- "$@" "$a"; fi
done
%s exec %q "$@"
`, filepath.Join(dir, "c", "s"), baton, exe)
	if err := os.WriteFile(filepath.Join(dir, "baton"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}

	sh := exec.CommandContext(t.Context(), "sh")
	sh.Dir = dir
	sh.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), service, "BATON_TEST_SCRIPT="+dir,
		envService+"=takeover 20ms "+filepath.Join("c", "s"), "GORACE=atexit_sleep_ms=0")
	sh.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // the service keeps the other end, so that Wait does not wait for it
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sh.Stdout, sh.Stderr = w, w
	err = sh.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killAll(dir)
		_ = sh.Wait() // killed, or done
	})
	out := bufio.NewReader(r)
	// do has the shell run a line and returns what was printed.
	do := func(line string) string {
		const mark = "end of the line:"
		if _, err := fmt.Fprintf(in, "%s\necho %q $?\n", line, mark); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		for {
			text, err := out.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v\n%s", line, err, said.String())
			}
			if status, ok := strings.CutPrefix(text, mark); ok {
				if strings.TrimSpace(status) != "0" {
					t.Fatalf("%s: exit status %s%s", line, strings.TrimSpace(status), said.String())
				}
				return said.String()
			}
			said.WriteString(text)
		}
	}
	var said strings.Builder
	for line := range strings.Lines(blocks[0]) {
		said.WriteString(do(strings.TrimSpace(line)))
		if regexp.MustCompile(`&\s*(#|$)`).MatchString(line) {
			do(`n=0; until baton status api >/dev/null 2>&1 || [ $n -gt 400 ]; do n=$((n + 1)); sleep 0.05; done`)
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	rest, err := io.ReadAll(out) // until the last process is gone
	if err != nil {
		t.Error(err)
	}
	said.Write(rest)
	for _, want := range []string{"serving  generation 2", "1 committed, 0 rolled back, 0 failed"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in:\n%s", want, said.String())
		}
	}
}

// copyProgram copies a program: with a link, mv would find both to be one file.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	program, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, program, 0o755); err != nil {
		t.Fatal(err)
	}
}
