package policy_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// rules are what TestPolicy checks. Each returns what breaks it.
var rules = map[string]func(*repo) []string{
	"package docs":      packageDocs,
	"export docs":       exportDocs,
	"descriptors":       descriptors,
	"close-on-exec":     closeOnExec,
	"sleeping tests":    sleepingTests,
	"skips":             skips,
	"long tests":        longTests,
	"leak gate":         leakGate,
	"init":              inits,
	"error texts":       errorTexts,
	"build constraints": buildConstraints,
	"dependencies":      dependencies,
	"import arrows":     importArrows,
	"package layers":    packageLayers,
	"file sizes":        fileSizes,
	"words":             words,
	"vague words":       vague,
	"callers":           callers,
	"documents":         documents,
}

// TestPolicy checks the module.
func TestPolicy(t *testing.T) {
	t.Parallel()
	r := load(t, os.DirFS("../.."))
	if len(r.sources) < 10 {
		t.Fatalf("found %d sources only", len(r.sources))
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, complaint := range slices.Sorted(slices.Values(rule(r))) {
				t.Error(complaint)
			}
		})
	}
}

// TestRules wants each rule to find what it is for.
func TestRules(t *testing.T) {
	t.Parallel()
	const long = "package a\nimport \"" + module + "/internal/testenv\"\n"
	for _, c := range []struct {
		rule string
		path string
		text string
		want string // empty: nothing
	}{
		{"package docs", "a/a.go", "// Package a is.\npackage a\n", "a/a.go: package doc outside doc.go"},
		{"package docs", "a/a.go", "package a\n", "a: no package doc in doc.go"},
		{"package docs", "a/doc.go", "// Nonsense.\npackage a\n", "a/doc.go: doc does not begin"},
		{"package docs", "a/doc.go", "// Package a is.\npackage a\n", ""},
		{"package docs", "cmd/a/doc.go", "// Command a is.\npackage main\n", ""},
		{"export docs", "a/a.go", "package a\nfunc F() {}\n", "a/a.go:2: F has no doc"},
		{"export docs", "a/a.go", "package a\n// G does.\nfunc F() {}\n", "a/a.go:3: doc of F does not begin with its name"},
		{"export docs", "a/a.go", "package a\n// Config is.\ntype Config struct {\n\tX int\n}\n", "a/a.go:4: Config.X has no doc"},
		{"export docs", "a/a.go", "package a\n// T is.\ntype T int\nfunc (*T) M() {}\n", "a/a.go:4: T.M has no doc"},
		{"export docs", "a/a.go", "package a\nvar E = 1\n", "a/a.go:2: E has no doc"},
		{"export docs", "a/a.go", "package a\n// Modes.\nconst (\n\tA = iota\n\t// B is.\n\tB\n\tC // is\n)\ntype t int\nfunc (t) M() {}\nfunc f() {}\n", ""},
		{"export docs", "internal/a/a.go", "package a\nfunc F() {}\n", ""},
		{"descriptors", "a/a.go", "package a\nfunc f(x X) { x.Fd() }\n", "a/a.go:2: Fd"},
		{"descriptors", "a/a_test.go", "package a\nfunc f(x X) { g(x.y.File()) }\n", "a/a_test.go:2: File"},
		{"descriptors", "a/a.go", "package a\nfunc f(x X) { x.File(1) }\n", ""},
		{"close-on-exec", "a/a.go", "package a\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.Dup(1) }\n", "a/a.go:3: unix.Dup"},
		{"close-on-exec", "a/a.go", "package a\nimport \"syscall\"\nfunc f() { syscall.Pipe(nil) }\n", "a/a.go:3: syscall.Pipe"},
		{"close-on-exec", "a/a.go", "package a\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.Socket(1, unix.SOCK_STREAM, 0) }\n", "a/a.go:3: unix.Socket"},
		{"close-on-exec", "a/a.go", "package a\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.Socket(1, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) }\n", ""},
		{"sleeping tests", "a/a_test.go", "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "a/a_test.go:3: time.Sleep"},
		{"sleeping tests", "a/a_test.go", "package a\nimport (\n\"testing/synctest\"\n\"time\"\n)\nfunc f() { synctest.Test(nil, func(any) { time.Sleep(1) }) }\n", ""},
		{"sleeping tests", "a/a.go", "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", ""},
		{"skips", "a/a_test.go", "package a\nfunc TestF(t *T) { t.Skip() }\n", "a/a_test.go:2: Skip without"},
		{"long tests", "a/a_test.go", long + "func TestF(t *T) { testenv.Long(t, \"TestG\") }\n", "a/a_test.go:3: a.TestG is no test"},
		{"long tests", "a/a_test.go", long + "func TestF(t *T) { testenv.Long(t, \"TestF\") }\n", "a/a_test.go:3: a.TestF is long itself"},
		{"long tests", "a/a_test.go", long + "func TestF(t *T) { testenv.Long(t, \"TestG\") }\nfunc TestG(t *T) { testenv.Long(t, \"TestF\") }\n", "a/a_test.go:3: a.TestG is long itself"},
		{"long tests", "a/a_test.go", long + "func TestF(t *T) { testenv.Long(t, name) }\n", "a/a_test.go:3: the quick test is no text"},
		{"long tests", "a/a_test.go", "package a\nfunc TestF(t *T) {\nif testing.Short() { t.Skip(\"slow\") }\n}\n", "a/a_test.go:3: skips"},
		{"long tests", "a/a_test.go", long + "func TestF(t *T) { if slow { testenv.Long(t, \"TestF\") } }\nfunc TestG(t *T) { testenv.Long(t, \"a.TestF\") }\n", ""},
		{"leak gate", "a/a_test.go", "package a\nfunc TestF(t *T) {}\n", "a: no TestMain"},
		{"leak gate", "a/a_test.go", "package a\nfunc TestMain(m *M) { m.Run() }\n", "a: no TestMain"},
		{"leak gate", "a/a_test.go", "package a\nimport \"" + module + "/internal/testmain\"\nfunc TestMain(m *M) { testmain.Run(m) }\nfunc TestF(t *T) {}\n", ""},
		{"init", "a/a.go", "package a\nfunc init() {}\n", "a/a.go:2: init"},
		{"error texts", "a/a.go", "package a\nvar e = errors.New(\"failed \" + \"x failed to y\")\n", "a/a.go:2: error text"},
		{"build constraints", "a/a_other.go", "package a\n", "a/a_other.go: no //go:build"},
		{"build constraints", "a/a_unix_test.go", "// Text.\n\npackage a\n", "a/a_unix_test.go: no //go:build"},
		{"build constraints", "a/a_other.go", "//go:build !linux\n\npackage a\n", ""},
		{"dependencies", "a/a.go", "package a\nimport \"example.org/x\"\n", "a/a.go: imports example.org/x"},
		{"dependencies", "a/a.go", "package a\nimport \"go.uber.org/goleak\"\n", "a/a.go: imports go.uber.org/goleak"},
		{"dependencies", "a/a_test.go", "package a\nimport \"go.uber.org/goleak\"\n", ""},
		{"dependencies", "a/a.go", "package a\nimport \"github.com/spf13/cobra\"\n", "a/a.go: imports github.com/spf13/cobra"},
		{"dependencies", "cmd/a/a.go", "package main\nimport \"github.com/spf13/cobra\"\n", ""},
		{"dependencies", "go.mod", "module x\nrequire example.org/x v1.0.0\n", "go.mod: requires example.org/x"},
		{"dependencies", "go.mod", "module x\nrequire example.org/x v1.0.0 // indirect\n", ""},
		{"dependencies", "go.mod", "module x\nreplace x => y\n", "go.mod: replace"},
		{"import arrows", "reuseport/a_test.go", "package a\nimport \"" + module + "/handoff\"\n", "reuseport/a_test.go: imports"},
		{"import arrows", "internal/a/a.go", "package a\nimport \"" + module + "/reuseport\"\n", "internal/a/a.go: imports"},
		{"import arrows", "handoff/a.go", "package a\nimport \"" + module + "/reuseport\"\n", ""},
		{"import arrows", "cmd/a/a.go", "package main\nimport \"" + module + "/cmd/b\"\n", "cmd/a/a.go: imports"},
		{"import arrows", "cmd/a/a.go", "package main\nimport \"" + module + "/cmd/a/internal/b\"\n", ""},
		{"file sizes", "a/a.go", "package a\n" + strings.Repeat("\n", 400), "a/a.go: has 401 lines"},
		{"file sizes", "a/a.go", "package a\n" + strings.Repeat("\n", 399), ""},
		{"file sizes", "a/a.go", "package a\n// Longer than 400 lines: it is a table.\n" + strings.Repeat("\n", 400), ""},
		{"file sizes", "a/a.go", "package a\n// Longer than 400 lines: it is a table.\n", "a/a.go: states why"},
		{"file sizes", "a/a_test.go", "package a\n" + strings.Repeat("\n", 499), ""},
		{"file sizes", "a/a_test.go", "package a\n" + strings.Repeat("\n", 500), "a/a_test.go: has 501 lines of tests"},
		{"documents", "README.md", "[a](docs/b.md)\n", "README.md: link to docs/b.md"},
		{"documents", "README.md", "# B c\n[a](#b)\n", "README.md: link to #b"},
		{"documents", "README.md", "# B `c`\n[a](#b-c) [d](https://example.org/#e)\n", ""},
		{"documents", "README.md", strings.Repeat("\n", 151), "README.md: 151 lines"},
		{"documents", "docs/a.md", "```go\nf(1)\n```\n", "docs/a.md: no example has the line f(1)"},
		{"documents", "docs/a.md", "```go\npackage main\n```\n", ""},
		{"words", "README.md", "see /" + "root/x\n", "README.md:1: "},
		{"words", "a/a.go", "package a\n// /" + "work/main\n", "a/a.go:2: "},
		{"vague words", "a/a.go", "package a\n// The process is\n// told so.\n", "a/a.go:2: "},
		{"vague words", "a.md", "Nobody `hears` it.\n", "a.md:1: "},
		{"vague words", "a.md", "The word `nobody` is not used.\n", ""},
		{"callers", "handoff/a.go", "package handoff\nfunc F() {}\n", "handoff/a.go:2: no other package, example or recipe uses F"},
		{"callers", "handoff/a.go", "package handoff\ntype t int\nfunc (t) M() {}\nfunc (t) Error() {}\n", ""},
		{"words", "a/a.go", "package a\n// /proc/1/root/x network/x\n", ""},
	} {
		r := load(t, fstest.MapFS{c.path: {Data: []byte(c.text)}})
		var got []string
		for _, complaint := range rules[c.rule](r) {
			if !strings.Contains(complaint, "is an exception of a rule") {
				got = append(got, complaint)
			}
		}
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) == 0 || !strings.HasPrefix(got[0], c.want)) {
			t.Errorf("rule %q on %s:\n%s\ncomplaints %q, want %q", c.rule, c.path, c.text, got, c.want)
		}
	}
}

// TestLayers wants each way to break the list of layers to be found.
func TestLayers(t *testing.T) {
	t.Parallel()
	const flip = `import "` + tableflip + `"` + "\n"
	one := func(pkg string) string { return `import "` + module + "/" + pkg + `"` + "\n" }
	for _, c := range []struct {
		name   string
		layers []map[string]string
		low    string // code of handoff/low
		high   string // of handoff/high
		want   []string
	}{
		{"in order", []map[string]string{{"handoff/low": ""}, {"handoff/high": "handoff/low"}}, "", one("handoff/low"), nil},
		{"another's module is no matter", []map[string]string{{"handoff/low": "", "handoff/high": ""}}, "", `import "example.org/x"`, nil},
		{"an import that is not listed", []map[string]string{{"handoff/low": ""}, {"handoff/high": ""}}, "", one("handoff/low"), []string{
			"handoff/high: imports handoff/low, which is no arrow of it in layers",
		}},
		{"tableflip that is not listed", []map[string]string{{tableflip: "", "handoff/low": "", "handoff/high": ""}}, flip, "", []string{
			"handoff/low: imports github.com/cloudflare/tableflip, which is no arrow of it in layers",
		}},
		{"a stale arrow", []map[string]string{{"handoff/low": ""}, {"handoff/high": "handoff/low"}}, "", "", []string{
			"handoff/high: has an arrow to handoff/low that no code uses",
		}},
		{"up", []map[string]string{{"handoff/low": "handoff/high"}, {"handoff/high": ""}}, one("handoff/high"), "", []string{
			"handoff/low: its arrow to handoff/high does not point down",
		}},
		{"aside", []map[string]string{{"handoff/low": "", "handoff/high": "handoff/low"}}, "", one("handoff/low"), []string{
			"handoff/high: its arrow to handoff/low does not point down",
		}},
		{"in no layer", []map[string]string{{"handoff/low": ""}}, "", "", []string{
			"handoff/high: is in no layer: give it a line in layers",
		}},
		{"no package", []map[string]string{{"handoff/low": "", "handoff/high": "", "handoff/none": ""}}, "", "", []string{
			"handoff/none: is in layers, and no package",
		}},
		{"in two layers", []map[string]string{{"handoff/low": "", "handoff/high": ""}, {"handoff/high": ""}}, "", "", []string{
			"handoff/high: is in two layers",
		}},
	} {
		r := load(t, fstest.MapFS{
			"handoff/low/a.go":       {Data: []byte("package low\n" + c.low)},
			"handoff/high/a.go":      {Data: []byte("package high\n" + c.high)},
			"handoff/high/a_test.go": {Data: []byte("package high_test\n" + one("internal/testmain"))},
			"cmd/a/a.go":             {Data: []byte("package main\n" + one("handoff/high"))},
		})
		if got := checkLayers(r, c.layers); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestExceptions wants an exception that breaks nothing to be found.
func TestExceptions(t *testing.T) {
	t.Parallel()
	e := exceptions{"a.go": "reason", "b.go": "reason"}
	got := e.check(map[string][]string{"b.go": {"b.go:1"}, "c.go": {"c.go:1"}})
	want := []string{"a.go: is an exception of a rule that it no longer breaks", "c.go:1"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("check = %q, want %q", got, want)
	}
}
