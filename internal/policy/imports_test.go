package policy_test

import (
	"slices"
	"strings"
)

// The modules that this one may use, each with what for.
var (
	libraryModules = map[string]string{
		"golang.org/x/sys":                "system calls that package syscall lacks",
		"golang.org/x/net":                "assembler of classic BPF programs, batches of datagrams",
		"github.com/cloudflare/tableflip": "engine of the mode Inherit",
		"github.com/hashicorp/go-hclog":   "logging",
		"github.com/mdlayher/netlink":     "inet_diag",
	}
	commandModules = map[string]string{ // for programs alone
		"github.com/spf13/cobra": "command line of baton",
		"github.com/spf13/pflag": "the flags of cobra's commands, for the manual",
	}
	testModules = map[string]string{
		"go.uber.org/goleak":              "leak gate",
		"github.com/google/go-cmp":        "comparison with a diff",
		"github.com/rogpeppe/go-internal": "testscript",
	}
)

// testSide reports whether a file is only for tests: a test itself, or a
// package of internal that tests import.
func testSide(s *source) bool {
	return s.test() || slices.Contains([]string{
		"internal/testmain", "internal/testenv", "internal/sysfault", "internal/netlab", "internal/policy", "internal/fakesystemd",
	}, s.dir())
}

// dependencies: the sources import, and go.mod requires, only what is listed
// here. A line more is a decision, and its reason goes into the commit.
func dependencies(r *repo) []string {
	var complaints []string
	known := func(path string, command, test bool) bool {
		in := func(modules map[string]string) bool {
			for m := range modules {
				if path == m || strings.HasPrefix(path, m+"/") {
					return true
				}
			}
			return false
		}
		return in(libraryModules) || command && in(commandModules) || test && in(testModules)
	}
	for _, s := range r.sources {
		for _, path := range s.imports() {
			first, _, _ := strings.Cut(path, "/")
			std := !strings.Contains(first, ".")
			if !std && path != module && !strings.HasPrefix(path, module+"/") && !known(path, strings.HasPrefix(s.path, "cmd/"), testSide(s)) {
				complaints = append(complaints, s.path+": imports "+path+", which is no listed dependency")
			}
		}
	}
	block := ""
	for line := range strings.Lines(string(r.texts["go.mod"])) {
		line = strings.TrimSpace(line)
		words := strings.Fields(block + " " + line)
		switch {
		case strings.HasSuffix(line, "("):
			block = strings.TrimSpace(strings.TrimSuffix(line, "("))
		case line == ")":
			block = ""
		case len(words) == 0 || strings.HasSuffix(line, "// indirect"):
		case words[0] == "require" && len(words) > 1 && !known(words[1], true, true):
			complaints = append(complaints, "go.mod: requires "+words[1]+", which is no listed dependency")
		case words[0] == "replace" || words[0] == "exclude" || words[0] == "tool":
			complaints = append(complaints, "go.mod: "+words[0]+" has no place here: "+line)
		}
	}
	return complaints
}

// importArrows: packages import downwards only, in tests too. For code, layers says
// more.
func importArrows(r *repo) []string {
	arrows := []struct{ from, not, why string }{
		{"reuseport", "handoff", "reuseport knows nothing of handoff"},
		{"internal", "handoff", "internal is below handoff"},
		{"internal", "reuseport", "internal is below reuseport"},
		{"", "cmd", "programs are not imported"},
	}
	under := func(path, dir string) bool { return dir == "" || path == dir || strings.HasPrefix(path, dir+"/") }
	var complaints []string
	for _, s := range r.sources {
		for _, path := range s.imports() {
			path, ours := strings.CutPrefix(path, module+"/")
			for _, a := range arrows {
				// The go command sees to it that a program's internal packages are its own.
				own := a.not == "cmd" && strings.Contains(path, "/internal/")
				if ours && under(s.path, a.from) && under(path, a.not) && !own {
					complaints = append(complaints, s.path+": imports "+path+", but "+a.why)
				}
			}
		}
	}
	return complaints
}
