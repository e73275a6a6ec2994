package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// pageCommands returns the command lines in the pages that begin with word, from
// blocks and from the text.
func pageCommands(t *testing.T, word string) []string {
	t.Helper()
	// A code span may continue on the next line; a block of Go code does not match.
	found := regexp.MustCompile("(?m)^    ("+word+" .*)$|`("+word+" [^`]*)`").FindAllStringSubmatch(pages(t), -1)
	var lines []string
	for _, m := range found {
		line, _, _ := strings.Cut(m[1]+m[2], " #")
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// inRoot runs a program in the README's folder.
func inRoot(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%q: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// TestPagesMake runs make -n for each target of the pages, which CI runs or which
// take long. make must know each variable.
func TestPagesMake(t *testing.T) {
	t.Parallel()
	lines := pageCommands(t, "make")
	if len(lines) < 3 {
		t.Fatalf("the pages have %q, want more", lines)
	}
	for _, line := range lines {
		const value = "4711" // differs from every default
		args := strings.Fields(regexp.MustCompile(`=\S+`).ReplaceAllString(line, "="+value))[1:]
		out := inRoot(t, "make", append([]string{"-n"}, args...)...)
		if strings.Contains(line, "=") && !strings.Contains(out, value) {
			t.Errorf("%s: a variable changes nothing:\n%s", line, out)
		}
	}
}

// TestPagesGo runs the go commands of the pages, with small numbers in place of theirs. It
// looks up the packages that they install, and the tests that they name.
func TestPagesGo(t *testing.T) {
	t.Parallel()
	lines := pageCommands(t, "go")
	if len(lines) < 3 {
		t.Fatalf("the pages have %q, want more", lines)
	}
	for _, line := range lines {
		switch args := strings.Fields(line)[1:]; args[0] {
		case "run":
			t.Run(line, func(t *testing.T) {
				testenv.Long(t, "TestPagesGo") // it is built, and runs under load
				out := inRoot(t, "go", strings.Fields(regexp.MustCompile(` \d+`).ReplaceAllString(strings.Join(args, " "), " 2"))...)
				if !strings.Contains(out, "result: ") {
					t.Errorf("%s has no result:\n%s", line, out)
				}
			})
		case "get":
			if name := inRoot(t, "go", "list", "-f", "{{.Name}}", args[1]); name == "" || name == "main\n" {
				t.Errorf("%s: package %q, want one to import", line, name)
			}
		case "install":
			path, _, latest := strings.Cut(args[1], "@")
			if name := inRoot(t, "go", "list", "-f", "{{.Name}}", path); name != "main\n" || !latest {
				t.Errorf("%s: package %q, want main, at a version", line, name)
			}
		case "test":
			for _, name := range testNames(t, args[1:]) {
				if name == "" {
					t.Errorf("%s: no such test", line)
				}
			}
		case "doc":
			if out := inRoot(t, "go", args...); len(out) < 1000 {
				t.Errorf("%s printed %q", line, out)
			}
		default:
			t.Errorf("%s: this test does not know how to run it", line)
		}
	}
}

// TestPagesWords parses the baton commands in the text of the pages. TestPages runs those
// in its blocks.
func TestPagesWords(t *testing.T) {
	t.Parallel()
	lines := pageCommands(t, "baton")
	if len(lines) < 8 {
		t.Fatalf("the pages have %q, want more", lines)
	}
	for _, line := range lines {
		root := newApp(io.Discard).command()
		root.InitDefaultHelpCmd()
		root.InitDefaultHelpFlag()
		cmd, rest, err := root.Find(strings.Fields(line)[1:])
		if err == nil && cmd == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			t.Errorf("%s: no such command", line)
		}
		if err == nil {
			cmd.InitDefaultHelpFlag()
			err = cmd.ParseFlags(rest)
		}
		if err != nil && !strings.Contains(err.Error(), "help requested") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// testNames returns, for each test that go test -run would select, the first one of its
// name in the package, or "".
func testNames(t *testing.T, args []string) []string {
	t.Helper()
	folder, pattern := "", "Test"
	for i, arg := range args {
		if strings.HasPrefix(arg, "./") {
			folder = arg
		} else if arg == "-run" {
			pattern = strings.Trim(args[i+1], "'")
		}
	}
	var sources strings.Builder
	for _, root := range []string{"../..", "../../integration"} {
		files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			sources.WriteString(readPage(t, file))
		}
	}
	var names []string
	for want := range strings.SplitSeq(pattern, "|") {
		names = append(names, regexp.MustCompile(`(?m)^func `+want+`\w*\(`).FindString(sources.String()))
	}
	return names
}
