package policy_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the files of the public API")

// TestAPI compares the public API with its golden files, so that a review sees each
// change of it.
func TestAPI(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"handoff", "handoff/control", "handoff/handoffdebug", "handoff/handoffhttp", "handoff/handoffprom", "handoff/handoffquic", "handoff/handofftls", "reuseport"} {
		cmd := exec.Command("go", "doc", "-all", ".")
		cmd.Dir = filepath.Join("../..", dir)
		cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=amd64", "NO_COLOR=1", "PAGER=")
		got, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(got), "package ") {
			t.Fatalf("go doc -all ./%s: %v, %.100q", dir, err, got)
		}
		file := filepath.Join("testdata/api", strings.ReplaceAll(dir, "/", "_")+".txt")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
			t.Errorf("the API of %s has changed: if on purpose, run go test ./internal/policy -run TestAPI -update (-want +got):\n%s", dir, diff)
		}
	}
}
