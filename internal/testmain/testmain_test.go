package testmain_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

const (
	// envLeak has TestLeak leave something behind.
	envLeak = "BATON_TEST_LEAK"
	// envExtra gives this package a helper that no test starts.
	envExtra = "BATON_TEST_EXTRA_HELPER"
)

func TestMain(m *testing.M) {
	opts := testmain.Options{
		Helpers: map[string]func([]string){"echo": echo},
		Ignore: []testmain.Ignore{
			{Goroutine: "github.com/seed-11c92bf9/baton/internal/testmain_test.ignored", Reason: "TestGate"},
			{File: "/dev/zero", Reason: "TestGate"},
		},
	}
	if os.Getenv(envExtra) != "" {
		opts.Helpers["extra"] = echo
	}
	testmain.RunOptions(m, opts)
}

// echo writes its arguments and what it reads.
func echo(args []string) {
	fmt.Println(args)
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func ignored(forever chan int) { <-forever }

// leaked keeps what TestLeak leaves from being collected.
var leaked []any

// TestLeak leaves on purpose what the environment says.
func TestLeak(t *testing.T) {
	open := func(name string) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		leaked = append(leaked, f)
	}
	start := func(cmd *exec.Cmd) {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		leaked = append(leaked, cmd)
	}
	switch os.Getenv(envLeak) {
	case "":
		t.Skip("leaks only where TestGate asks for it")
	case "goroutine":
		go func() { select {} }()
	case "descriptor":
		open("/dev/null")
	case "socket":
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		leaked = append(leaked, ln)
	case "child":
		cmd := testmain.Command(t, "echo") // ends with this process
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		leaked = append(leaked, stdin)
		start(cmd)
	case "zombie":
		start(testmain.Command(t, "echo"))
	case "ignored":
		go ignored(make(chan int))
		open("/dev/zero")
	}
}

// TestGate runs the test binary again, with a leak, and wants it to fail.
func TestGate(t *testing.T) {
	t.Parallel()
	if os.Getenv(envExtra) != "" {
		t.Skip("TestUnusedHelper does not ask for it")
	}
	cases := []struct{ leak, want string }{
		{"nothing", ""},
		{"goroutine", "goroutines are left: found unexpected goroutines:"},
	}
	if runtime.GOOS == "linux" {
		cases = append(cases, []struct{ leak, want string }{
			{"descriptor", "(/dev/null)"},
			{"socket", "type 1, bound to [127 0 0 1] port "},
			{"child", "child processes are left, running or not waited for: "},
			{"zombie", "child processes are left, running or not waited for: "},
			{"ignored", ""},
		}...)
	}
	for _, c := range cases {
		t.Run(c.leak, func(t *testing.T) {
			t.Parallel()
			checkRun(t, c.want, envLeak+"="+c.leak, "-test.run=^TestLeak$")
		})
	}
}

// TestUnusedHelper wants a run of all tests to fail for a helper that no test
// starts, and a run of some not to.
func TestUnusedHelper(t *testing.T) {
	t.Parallel()
	if os.Getenv(envExtra) != "" {
		t.Skip("this is the run that TestUnusedHelper looks at")
	}
	checkRun(t, `helper "extra" is started by no test`, envExtra+"=1")
	checkRun(t, "", envExtra+"=1", "-test.run=^TestLeak$")
}

// checkRun runs the test binary again. It must fail with the text want, or pass
// if want is empty.
func checkRun(t *testing.T, want, env string, args ...string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	if failed := err != nil; failed != (want != "") {
		t.Errorf("test binary with %s: %v, want failure %t\n%s", env, err, want != "", out)
	}
	if !strings.Contains(string(out), want) {
		t.Errorf("test binary with %s: output without %q:\n%s", env, want, out)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	cmd := testmain.Command(t, "echo", "-a", "b")
	cmd.Stdin = strings.NewReader("input")
	out, err := cmd.Output()
	if got, want := string(out), "[-a b]\ninput"; got != want || err != nil {
		t.Errorf("helper echo wrote %q, %v, want %q", got, err, want)
	}
	cmd = testmain.Command(t, "no-such-helper")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), `no helper "no-such-helper"`) {
		t.Errorf("unknown helper: %v, %q", err, out)
	}
}
