package policy_test

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// architecturePage has the picture of packages, between two lines.
const (
	architecturePage = "../../docs/architecture.md"
	pictureBegins    = "```mermaid\n"
	pictureEnds      = "```\n"
)

// TestArchitecture compares the picture of packages with their imports. With -update it
// draws the picture anew.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(architecturePage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), pictureBegins)
	have, after, ends := strings.Cut(rest, pictureEnds)
	if !begins || !ends {
		t.Fatalf("%s has no picture", architecturePage)
	}
	want := picture(layers)
	switch {
	case have == want:
	case *update:
		if err := os.WriteFile(architecturePage, []byte(before+pictureBegins+want+pictureEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the packages have changed: run go test ./internal/policy -run TestArchitecture -update. Want:\n%s", want)
	}
}

// TestPicture wants arrows that others imply to be left out.
func TestPicture(t *testing.T) {
	t.Parallel()
	got := picture([]map[string]string{
		{"internal/low": "", "reuseport": ""},
		{"handoff/internal/mid": "internal/low reuseport"},
		{"handoff": "handoff/internal/mid internal/low reuseport", "handoff/handoffhttp/internal/soak": "reuseport"},
	})
	want := "flowchart TD\n    handoff --> mid\n    mid --> reuseport\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// picture draws the packages of handoff and reuseport as a Mermaid flowchart. An arrow
// stands for an import; one that two others imply is left out.
func picture(layers []map[string]string) string {
	imports := make(map[string][]string)
	for _, layer := range layers {
		for pkg, list := range layer {
			if drawn(pkg) {
				imports[pkg] = slices.DeleteFunc(strings.Fields(list), func(to string) bool { return !drawn(to) })
			}
		}
	}
	var reaches func(from, to string) bool
	reaches = func(from, to string) bool {
		return slices.ContainsFunc(imports[from], func(next string) bool { return next == to || reaches(next, to) })
	}
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		for _, to := range slices.Sorted(slices.Values(imports[pkg])) {
			implied := slices.ContainsFunc(imports[pkg], func(other string) bool { return other != to && reaches(other, to) })
			if !implied {
				fmt.Fprintf(&b, "    %s --> %s\n", path.Base(pkg), path.Base(to))
			}
		}
	}
	return b.String()
}

// drawn reports whether a package is in the picture: those with helpers that the whole
// module uses, and the programs of tests, are not.
func drawn(pkg string) bool {
	return pkg == tableflip || !strings.HasPrefix(pkg, "internal/") && !strings.HasPrefix(pkg, "handoff/handoffhttp/internal/")
}
