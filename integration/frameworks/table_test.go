package main

import (
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestTable compares docs/frameworks.md with the programs: the file of a row has the row's
// line, and each file that serves a framework has a row.
func TestTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/frameworks.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| [^|]+ \\| `([^`]+)` \\|.* \\[[^]]+\\]\\(\\.\\./integration/([^)]+)\\) \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 14 {
		t.Errorf("the page has %d rows, want at least 14", len(rows))
	}
	linked := make(map[string]bool)
	for _, row := range rows {
		line, file := row[1], row[2]
		linked[path.Base(file)] = true
		text, err := os.ReadFile("../" + file)
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(text), line) {
			t.Errorf("%s does not have the line %s", file, line)
		}
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc serve") && f.Name() != "control.go" && !linked[f.Name()] {
			t.Errorf("%s has no row", f.Name())
		}
	}
}
