package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// TestBoot boots one kernel that make kernels has fetched, and runs a small
// package there.
func TestBoot(t *testing.T) {
	testenv.Long(t, "TestImage")
	if _, err := exec.LookPath(qemu); err != nil {
		testmain.Skipped()
		t.Skipf("needs QEMU: %v", err)
	}
	cache, err := cacheDir()
	if err != nil {
		t.Skip(err)
	}
	for suite := range strings.SplitSeq(allSuites, ",") {
		if _, err = cached(cache, suite); err != nil {
			continue
		}
		var stdout, stderr bytes.Buffer
		status := driverMain([]string{"-suites", suite, "-packages", "internal/fdx", "-memory", "1024", "-artifacts", t.TempDir()}, &stdout, &stderr)
		if text := stdout.String(); status != 0 || !strings.Contains(text, "result: ok kernels=1 passed=") {
			t.Errorf("status %d:\n%s%s", status, text, &stderr)
		}
		return
	}
	testmain.Skipped()
	t.Skipf("needs a kernel that make kernels has fetched: %v", err)
}

// TestNoMachine has the roles refuse to play on a machine that is a real one.
func TestNoMachine(t *testing.T) {
	t.Parallel()
	for _, role := range []string{roleInit, roleRunner, "other"} {
		cmd := testmain.Command(t, "kernels")
		cmd.Env = append(cmd.Env, envRole+"="+role)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is for the first process of an emulated machine") {
			t.Errorf("%s: %v: %s", role, err, out)
		}
	}
}
