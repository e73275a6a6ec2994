package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

// TestContainers upgrades a service in containers under load, in two of the ways that make
// containers shows: by a second container, and below baton run as PID 1.
func TestContainers(t *testing.T) {
	testenv.Long(t, "cmd/baton.TestRunPID1Upgrades")
	testenv.Need(t, "podman")
	bin := t.TempDir()
	build := func(dir string, args ...string) {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", bin + "/"}, args...)...)
		cmd.Dir, cmd.Env = dir, append(cmd.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	build(".", ".")
	build("../..", "./cmd/baton", "./cmd/baton-demo")
	for _, row := range []string{"takeover, read-only root", "baton run as PID 1"} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "containers"), "-upgrades", "1", "-bin", bin, "-docs", "../../docs/containers.md", "-only", row)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = time.Minute // it ends its containers
		out, err := cmd.CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		last := lines[len(lines)-1]
		if cmd.ProcessState.ExitCode() == statusNoContainers {
			testenv.Lacks(t, "podman", errors.New(last))
		}
		if err != nil || !strings.HasPrefix(last, "result: upgrades=1 ") || !strings.HasSuffix(last, " failed=0") {
			t.Errorf("%s: %v\n%s", row, err, out)
		}
		t.Log(row, last)
	}
}
