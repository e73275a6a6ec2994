package testmain

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// envHelper names the helper that a process runs.
const envHelper = "BATON_TEST_HELPER"

// settle is how long leaks have to go away by themselves: closes and exits are
// asynchronous.
const settle = 3 * time.Second

// used notes which helpers tests have started, skipped whether tests were left
// out. A TestMain is one to a process, and so are these.
var (
	used    sync.Map
	skipped atomic.Bool
)

// Options say what a package needs beyond a plain [Run].
type Options struct {
	// Helpers are the programs that [Command] starts, by name. nil means none.
	Helpers map[string]func(args []string)
	// Ignore lists what may be left. nil means nothing.
	Ignore []Ignore
}

// Ignore is one thing that the gate lets pass.
type Ignore struct {
	// Goroutine is the full name of the function on top of the stack of a
	// goroutine that may be left. Empty means none.
	Goroutine string
	// File is how the link in /proc/self/fd of a descriptor that may be left
	// begins. Empty means none.
	File string
	// Reason says why. It must not be empty.
	Reason string
}

// Run runs the tests and exits: non-zero if one fails, or if something is left.
func Run(m *testing.M) { RunOptions(m, Options{}) }

// RunWith is Run for a package whose tests start helpers as processes. A
// process that [Command] started runs its helper instead of the tests, and
// exits with status 0 when the helper returns. A helper that no test has
// started fails a run of all tests.
func RunWith(m *testing.M, helpers map[string]func(args []string)) {
	RunOptions(m, Options{Helpers: helpers})
}

// RunOptions is Run with options.
func RunOptions(m *testing.M, opts Options) {
	if name := os.Getenv(envHelper); name != "" {
		helper := opts.Helpers[name]
		if helper == nil {
			fmt.Fprintf(os.Stderr, "testmain: no helper %q\n", name)
			os.Exit(2)
		}
		helper(os.Args[1:])
		os.Exit(0)
	}
	ownGroup()
	before := openFiles()
	code := m.Run()
	if code == 0 { // a failed test may leave what it likes
		code = gate(before, opts)
	}
	os.Exit(code)
}

// Skipped informs the gate that a test was skipped because the machine lacks a feature:
// helpers that did not start then are no failure.
func Skipped() { skipped.Store(true) }

// Hang never returns. Where a program without the C library has nothing but select {},
// the runtime ends it as a deadlock.
func Hang() {
	for {
		<-time.After(time.Hour)
	}
}

// Command returns the command that runs a helper of [RunWith] with args. It has
// the environment of the test process. The kernel kills it when the thread that
// started it ends (PR_SET_PDEATHSIG(2const)), that is with the test process at
// the latest.
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

// gate looks for leaks and unused helpers and returns the exit status.
func gate(before map[int]string, opts Options) int {
	code := 0
	complain := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "testmain: "+format+"\n", args...)
		code = 1
	}
	var goroutines []goleak.Option
	for _, ignore := range opts.Ignore {
		if ignore.Reason == "" {
			complain("Options.Ignore without a reason: %+v", ignore)
		}
		if ignore.Goroutine != "" {
			goroutines = append(goroutines, goleak.IgnoreTopFunction(ignore.Goroutine))
		}
	}
	for name := range opts.Helpers {
		if _, ok := used.Load(name); !ok && !partial() {
			complain("helper %q is started by no test", name)
		}
	}
	// goleak gives goroutines a moment of its own. Its text has their stacks
	// and who created them.
	if err := goleak.Find(goroutines...); err != nil {
		complain("goroutines are left: %v", err)
	}
	deadline := time.Now().Add(settle)
	if left := eventually(deadline, func() []string { return leftFiles(before, opts.Ignore) }); len(left) > 0 {
		complain("descriptors are left: %s", strings.Join(left, ", "))
	}
	if left := eventually(deadline, leftChildren); len(left) > 0 {
		complain("child processes are left, running or not waited for: %s", strings.Join(left, ", "))
	}
	return code
}

// partial reports whether some tests were left out.
func partial() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.bench", "test.fuzz"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return testing.Short() || skipped.Load()
}

// eventually calls look until it finds nothing or time is up, and returns what
// it found last.
func eventually(deadline time.Time, look func() []string) []string {
	for {
		left := look()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// leftFiles returns the descriptors that are open now and were not before.
func leftFiles(before map[int]string, ignores []Ignore) []string {
	var left []string
	for fd, target := range openFiles() {
		if before[fd] == target || runtimeFile(target) ||
			slices.ContainsFunc(ignores, func(i Ignore) bool { return i.File != "" && strings.HasPrefix(target, i.File) }) {
			continue
		}
		left = append(left, describe(fd, target))
	}
	slices.Sort(left)
	return left
}

// runtimeFile reports whether a descriptor is the Go runtime's own and stays
// open: its poller, and the limits that it reads again and again (since Go
// 1.25, runtime/cgroup_linux.go).
func runtimeFile(target string) bool {
	return target == "anon_inode:[eventpoll]" ||
		target == "anon_inode:[eventfd]" ||
		strings.HasPrefix(target, "/sys/fs/cgroup/")
}
