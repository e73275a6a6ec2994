package handoffhttp_test

import (
	"os"
	"strings"
	"testing"
)

// TestPage holds the program of docs/reuseport.md, and of the documentation of package
// reuseport, against the example, which the compiler has seen.
func TestPage(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_, program, _ := strings.Cut(read("example_test.go"), "func ExampleRun_reuseport() {\n")
	program, _, _ = strings.Cut(program, "\n}\n")
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	for name, text := range map[string]string{
		"docs/reuseport.md": read("../../docs/reuseport.md"),
		"reuseport/doc.go":  strings.ReplaceAll(read("../../reuseport/doc.go"), "//\t", ""),
	} {
		if program == "" || !strings.Contains(squeeze(text), squeeze(program)) {
			t.Errorf("%s does not show the program of ExampleRun_reuseport", name)
		}
	}
}
