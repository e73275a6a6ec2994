package testenv

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// envRequire lists what the machine must have.
const envRequire = "BATON_REQUIRE"

// features holds what probes the features, by name. A probe returns nil if the
// machine has the feature, and remembers what it found. The map never changes.
var features = map[string]func() error{
	"chromium":      sync.OnceValue(program("chromium")),
	"ipv6":          sync.OnceValue(ipv6),
	"memfd":         sync.OnceValue(memfd),
	"mptcp":         sync.OnceValue(mptcp),
	"netns":         sync.OnceValue(netns),
	"nginx":         sync.OnceValue(program("nginx")),
	"podman":        sync.OnceValue(podman),
	"prometheus":    sync.OnceValue(program("prometheus")),
	"own_clock":     sync.OnceValue(ownClock),
	"pidfd":         sync.OnceValue(pidfd),
	"python3":       sync.OnceValue(program("python3")),
	"reuseport_bpf": sync.OnceValue(reuseportBPF),
	"root":          sync.OnceValue(root),
	"systemd":       sync.OnceValue(systemd),
	"unshare_pid":   sync.OnceValue(unsharePID),
}

// Need skips the test if the machine lacks the feature, or fails it if
// BATON_REQUIRE says that the machine has it. The name of a feature that is not
// in the list of the package is an error. Call it from the test's goroutine.
func Need(tb testing.TB, feature string) {
	tb.Helper()
	conclude(tb, features, feature)
}

// Lacks is Need of a feature that the machine lacks for the reason err, as the test has
// found out although the probe succeeds.
func Lacks(tb testing.TB, feature string, err error) {
	tb.Helper()
	found := maps.Clone(features)
	found[feature] = func() error { return err }
	conclude(tb, found, feature)
}

func conclude(tb testing.TB, features map[string]func() error, feature string) {
	tb.Helper()
	verdict, text := decide(features, os.Getenv(envRequire), feature)
	switch verdict {
	case skip:
		testmain.Skipped()
		tb.Skip(text)
	case fail:
		tb.Fatal(text)
	}
}

type verdict string

const (
	run  verdict = "run"
	skip verdict = "skip"
	fail verdict = "fail"
)

// decide says what becomes of a test that needs a feature, and why.
func decide(features map[string]func() error, require, feature string) (verdict, string) {
	known := slices.Sorted(maps.Keys(features))
	var required []string
	for name := range strings.SplitSeq(require, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if name != "all" && features[name] == nil {
			return fail, fmt.Sprintf("%s has %q, want one of %q, or all", envRequire, name, known)
		}
		required = append(required, name)
	}
	probe := features[feature]
	if probe == nil {
		return fail, fmt.Sprintf("no feature %q, want one of %q", feature, known)
	}
	err := probe()
	switch {
	case err == nil:
		return run, ""
	case slices.Contains(required, feature), slices.Contains(required, "all"):
		return fail, fmt.Sprintf("%s=%s, but this machine lacks %s: %v", envRequire, require, feature, err)
	default:
		return skip, fmt.Sprintf("needs %s: %v", feature, err)
	}
}

// program returns a probe for a program in PATH.
func program(name string) func() error {
	return func() error {
		_, err := exec.LookPath(name)
		return err
	}
}

// ownClock can't be probed: an environment variable has to say so.
func ownClock() error {
	if os.Getenv("BATON_OWN_CLOCK") != "1" {
		return errors.New("the machine's clock is others' too, or BATON_OWN_CLOCK=1 is missing in the environment")
	}
	return root()
}

// podman looks for what starts containers, as root. A test that has found out that podman
// can't start one calls Lacks.
func podman() error {
	return errors.Join(root(), program("podman")(), program("crun")(), program("catatonit")())
}

// root reports why the process is not root.
func root() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("effective user id is %d", uid)
	}
	return nil
}
