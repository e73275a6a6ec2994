package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

var update = flag.Bool("update", false, "write the manual pages")

// manualDir has the pages, for packagers and for readers of the repository.
const manualDir = "man"

// TestManual compares the pages in the repository with those of the command.
func TestManual(t *testing.T) {
	t.Parallel()
	if *update {
		if err := os.RemoveAll(manualDir); err != nil {
			t.Fatal(err)
		}
		if err := writeManual(manualDir); err != nil {
			t.Fatal(err)
		}
	}
	want := manual()
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(manualDir, name))
		if err != nil {
			t.Errorf("%v: run make man", err)
			continue
		}
		if diff := cmp.Diff(text, string(got)); diff != "" {
			t.Errorf("man/%s is stale: run make man (-want +got):\n%s", name, diff)
		}
	}
	files, err := os.ReadDir(manualDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if want[f.Name()] == "" {
			t.Errorf("man/%s is the page of no command: run make man", f.Name())
		}
	}
	for _, name := range []string{"baton.1", "baton-upgrade.1", "baton-doctor.1"} {
		if want[name] == "" {
			t.Errorf("no page %s", name)
		}
	}
}

// TestManualRenders renders the pages with man, which must print no warning.
func TestManualRenders(t *testing.T) {
	t.Parallel()
	man, err := exec.LookPath("man")
	if err != nil {
		testmain.Skipped()
		t.Skipf("%v: apt-get install man-db", err)
	}
	if version, err := exec.CommandContext(t.Context(), man, "--version").Output(); err != nil || !strings.HasPrefix(string(version), "man 2.") {
		testmain.Skipped()
		t.Skipf("%s is not that of man-db: %v, %q", man, err, version)
	}
	dir := filepath.Join(t.TempDir(), "man1")
	if status := run([]string{"man", dir}, os.Stdout, os.Stderr); status != exitDone {
		t.Fatalf("baton man: exit status %d", status)
	}
	for name := range manual() {
		t.Run(name, func(t *testing.T) {
			if name != "baton.1" && name != "baton-run.1" {
				testenv.Long(t, "TestManualRenders")
			}
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), man, "--warnings=w", "-E", "UTF-8", "-P", "cat", "-l", filepath.Join(dir, name))
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MAN_KEEP_FORMATTING=")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || stderr.Len() > 0 {
				t.Fatalf("%v: %v: %s", cmd.Args, err, stderr.String())
			}
			wants := []string{"NAME", "SYNOPSIS", "OPTIONS", "--json", "--socket=path", "EXIT STATUS", "SEE ALSO"}
			if name == "baton.1" {
				wants = append(wants, "FILES", "ENVIRONMENT", "/run/baton/NAME/control.sock", "NO_COLOR", "baton-upgrade(1)",
					"15     the server broke off")
			}
			for _, want := range wants {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

// TestExitTexts compares the list of exit statuses with the list in doc.go.
func TestExitTexts(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(doc), "// # Exit status\n//\n")
	var want strings.Builder
	for status, text := range exitTexts() {
		fmt.Fprintf(&want, "//\t%-3d %s\n", status, text)
	}
	if !strings.HasPrefix(list, want.String()) {
		t.Errorf("doc.go (-want +got):\n%s", cmp.Diff(want.String(), list))
	}
}
