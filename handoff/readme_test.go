package handoff_test

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeExample holds the README's Go code against the examples, which the
// compiler has seen.
func TestReadmeExample(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	have := squeeze(string(example))
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("the README shows no Go code")
	}
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		if !strings.Contains(code, "handoff.") && !strings.Contains(code, "up.") {
			continue // another package's; its own test looks at it
		}
		for line := range strings.SplitSeq(strings.TrimSpace(code), "\n") {
			if s := squeeze(line); s != "" && !strings.Contains(have, s) {
				t.Errorf("the README's line is in no example:\n%s", line)
			}
		}
	}
}

// squeeze takes out white space, which gofmt sets by what surrounds a line.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }
