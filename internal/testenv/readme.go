package testenv

import (
	"os"
	"strings"
	"testing"
)

// ReadmeLine compares the lines of a README that begin with prefix with the example,
// which the compiler has checked. There must be at least one.
func ReadmeLine(tb testing.TB, readme, example, prefix string) {
	tb.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		tb.Fatal(err)
	}
	code, err := os.ReadFile(example)
	if err != nil {
		tb.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
			found = true
			if !strings.Contains(string(code), line) {
				tb.Errorf("the line of %s is not in %s: %s", readme, example, line)
			}
		}
	}
	if !found {
		tb.Errorf("%s has no line that begins with %s", readme, prefix)
	}
}
