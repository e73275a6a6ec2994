package handoffprom_test

import (
	"os"
	"strings"
	"testing"
)

// TestReadme holds the README's line against the example, which the compiler
// has seen.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(readme)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "prometheus.MustRegister(handoffprom.") {
			found = true
			if !strings.Contains(string(example), line) {
				t.Errorf("the README's line is not in the example: %s", line)
			}
		}
	}
	if !found {
		t.Error("the README has no line for this package")
	}
}
