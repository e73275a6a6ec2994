package testmain_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// envLeak has TestLeak leave something behind.
const envLeak = "BATON_TEST_LEAK"

func TestMain(m *testing.M) { testmain.Run(m) }

// leaked keeps what TestLeak leaves from being collected.
var leaked any

// TestLeak leaves on purpose what the environment says.
func TestLeak(t *testing.T) {
	switch os.Getenv(envLeak) {
	case "":
		t.Skip("leaks only where TestGate asks for it")
	case "goroutine":
		go func() { select {} }()
	case "descriptor":
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		leaked = f
	case "child":
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Logf("child %d", cmd.Process.Pid)
		leaked = cmd
	case "zombie":
		cmd := exec.Command("true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		leaked = cmd
	}
}

// TestGate runs the test binary again, with a leak, and wants it to fail.
func TestGate(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ leak, want string }{
		{"nothing", ""},
		{"goroutine", "goroutines are left"},
	}
	if runtime.GOOS == "linux" {
		cases = append(cases, []struct{ leak, want string }{
			{"descriptor", "descriptors are left"},
			{"child", "a child process is left"},
			{"zombie", "a child process is left"},
		}...)
	}
	for _, c := range cases {
		t.Run(c.leak, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(exe, "-test.run=^TestLeak$", "-test.v")
			cmd.Env = append(os.Environ(), envLeak+"="+c.leak)
			out, err := cmd.CombinedOutput()
			if pid, ok := childOf(string(out)); ok {
				killProcess(t, pid)
			}
			if failed := err != nil; failed != (c.want != "") {
				t.Errorf("exit status with leak %q: %v\n%s", c.leak, err, out)
			}
			if !strings.Contains(string(out), c.want) {
				t.Errorf("output with leak %q does not say %q:\n%s", c.leak, c.want, out)
			}
		})
	}
}

func childOf(out string) (string, bool) {
	_, rest, ok := strings.Cut(out, "child ")
	if !ok || !strings.Contains(out, "testmain_test.go") {
		return "", false
	}
	pid := strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0])
	return pid, pid != "" && strings.Trim(pid, "0123456789") == ""
}

func killProcess(t *testing.T, pid string) {
	t.Helper()
	if err := exec.Command("kill", "-9", pid).Run(); err != nil {
		t.Log(err)
	}
}
