package main

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// readmeCommands returns the command lines in the README that begin with word, from
// blocks and from the text.
func readmeCommands(t *testing.T, word string) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	// A code span may continue on the next line; a block of Go code does not match.
	found := regexp.MustCompile("(?m)^    ("+word+" .*)$|`("+word+" [^`]*)`").FindAllStringSubmatch(string(readme), -1)
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

// TestReadmeMake runs make -n for each of the README's targets, which CI runs or which
// take long. make must know each variable.
func TestReadmeMake(t *testing.T) {
	t.Parallel()
	lines := readmeCommands(t, "make")
	if len(lines) < 3 {
		t.Fatalf("the README has %q, want more", lines)
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

// TestReadmeGo runs the README's go commands, with small numbers in place of the
// README's. It only looks up packages that the README installs.
func TestReadmeGo(t *testing.T) {
	t.Parallel()
	lines := readmeCommands(t, "go")
	if len(lines) < 3 {
		t.Fatalf("the README has %q, want more", lines)
	}
	for _, line := range lines {
		switch args := strings.Fields(line)[1:]; args[0] {
		case "run":
			t.Run(line, func(t *testing.T) {
				testenv.Long(t, "TestReadmeGo") // it is built, and runs under load
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
		case "doc":
			if out := inRoot(t, "go", args...); len(out) < 1000 {
				t.Errorf("%s printed %q", line, out)
			}
		default:
			t.Errorf("%s: this test does not know how to run it", line)
		}
	}
}

// TestReadmeWords parses the baton commands in the README's text. TestReadme runs those
// in its blocks.
func TestReadmeWords(t *testing.T) {
	t.Parallel()
	lines := readmeCommands(t, "baton")
	if len(lines) < 8 {
		t.Fatalf("the README has %q, want more", lines)
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

// TestReadmeLinks follows each link within the README to its heading.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for _, h := range regexp.MustCompile("(?m)^#+ (.*)$").FindAllStringSubmatch(string(readme), -1) {
		name := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(h[1]), "")
		anchors[strings.ReplaceAll(name, " ", "-")] = true
	}
	links := regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(string(readme), -1)
	if len(links) < 10 {
		t.Errorf("the README has %d links to its own sections, want more", len(links))
	}
	for _, l := range links {
		if !anchors[l[1]] {
			t.Errorf("no heading for #%s", l[1])
		}
	}
}
