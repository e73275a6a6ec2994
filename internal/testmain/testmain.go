package testmain

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// envHelper names the helper that a process is to be.
const envHelper = "BATON_TEST_HELPER"

// settle is how long leaks have to go away by themselves: closes are
// asynchronous.
const settle = 5 * time.Second

// used notes which helpers tests have started.
var used sync.Map

// Run runs the tests and exits: non-zero if one fails, or if something is left.
func Run(m *testing.M) { RunWith(m, nil) }

// RunWith is Run for a package whose tests start helpers as processes. A
// process that [Command] started runs its helper instead of the tests. A helper
// that no test has started fails a run of all tests.
func RunWith(m *testing.M, helpers map[string]func(args []string)) {
	if name := os.Getenv(envHelper); name != "" {
		helper := helpers[name]
		if helper == nil {
			fmt.Fprintf(os.Stderr, "testmain: no helper %q\n", name)
			os.Exit(2)
		}
		helper(os.Args[1:])
		os.Exit(0)
	}
	before := openFiles()
	code := m.Run()
	if code == 0 {
		code = gate(before, helpers)
	}
	os.Exit(code)
}

// gate looks for leaks and unused helpers and returns the exit status.
func gate(before map[int]string, helpers map[string]func([]string)) int {
	code := 0
	complain := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "testmain: "+format+"\n", args...)
		code = 1
	}
	for name := range helpers {
		if _, ok := used.Load(name); !ok && !filtered() {
			complain("helper %q is started by no test", name)
		}
	}
	// goleak gives them a moment of its own.
	if err := goleak.Find(); err != nil {
		complain("goroutines are left: %v", err)
	}
	if left := leftFiles(before); len(left) > 0 {
		complain("descriptors are left: %s", strings.Join(left, ", "))
	}
	if err := leftChildren(); err != nil {
		complain("%v", err)
	}
	return code
}

// filtered reports whether some tests were left out.
func filtered() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.bench", "test.fuzz"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return testing.Short()
}

// leftFiles returns the descriptors that are open now and were not before.
func leftFiles(before map[int]string) []string {
	deadline := time.Now().Add(settle)
	for {
		var left []string
		for fd, target := range openFiles() {
			if before[fd] != target && !runtimeFile(target) {
				left = append(left, fmt.Sprintf("%d (%s)", fd, target))
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			sort.Strings(left)
			return left
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// runtimeFile reports whether a descriptor is the Go runtime's own: its poller,
// what it reads its limits from, and its handles on processes.
func runtimeFile(target string) bool {
	return strings.HasPrefix(target, "anon_inode:[eventpoll]") ||
		strings.HasPrefix(target, "anon_inode:[eventfd]") ||
		strings.HasPrefix(target, "/sys/fs/cgroup/") ||
		strings.HasPrefix(target, "/proc/self/")
}

// Command returns the command that runs a helper of [RunWith] with args. The
// process is killed when the test process ends.
func Command(tb testing.TB, name string, args ...string) *exec.Cmd {
	tb.Helper()
	used.Store(name, true)
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), envHelper+"="+name)
	dieWithUs(cmd)
	return cmd
}
