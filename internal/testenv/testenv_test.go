package testenv_test

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

func TestDecide(t *testing.T) {
	t.Parallel()
	features := map[string]func() error{
		"here":   func() error { return nil },
		"absent": func() error { return errors.New("no such thing") },
	}
	for _, c := range []struct{ require, feature, verdict, text string }{
		{"", "here", "run", ""},
		{"", "absent", "skip", "needs absent: no such thing"},
		{"here", "absent", "skip", "needs absent"},
		{"absent", "here", "run", ""},
		{"absent", "absent", "fail", "lacks absent: no such thing"},
		{"here, absent", "absent", "fail", "lacks absent"},
		{"all", "absent", "fail", "lacks absent"},
		{"all", "here", "run", ""},
		{"", "abs", "fail", `no feature "abs"`},
		{"abs", "here", "fail", `BATON_REQUIRE has "abs"`},
		{"abs", "absent", "fail", `BATON_REQUIRE has "abs"`},
	} {
		verdict, text := testenv.Decide(features, c.require, c.feature)
		if verdict != c.verdict || !strings.Contains(text, c.text) {
			t.Errorf("decide(%q, %q) = %s, %q, want %s, %q", c.require, c.feature, verdict, text, c.verdict, c.text)
		}
	}
}

// TestProbes runs every probe: each ends, and says no off Linux.
func TestProbes(t *testing.T) {
	t.Parallel()
	for name, probe := range testenv.Probes() {
		err := probe()
		t.Logf("%s: %v", name, err)
		if runtime.GOOS != "linux" && name != "root" && name != "ipv6" && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("probe of %s on %s: %v, want %v", name, runtime.GOOS, err, errors.ErrUnsupported)
		}
	}
}

func TestNeed(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "root")
	if os.Geteuid() != 0 {
		t.Error("Need(root) let a user pass")
	}
}

// TestDoc wants the package's doc to list each feature, and no other.
func TestDoc(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^//\t([a-z0-9_]+)  `).FindAllStringSubmatch(string(doc), -1)
	for _, line := range lines {
		if testenv.Probes()[line[1]] == nil {
			t.Errorf("doc.go lists %q, which is no feature", line[1])
		}
	}
	if got, want := len(lines), len(testenv.Probes()); got != want {
		t.Errorf("doc.go lists %d features, want %d", got, want)
	}
}

// TestProgram executes programs that were written a moment before, while other
// goroutines start processes.
func TestProgram(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() { // ends with stop
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("true").Run() // it has the descriptors until its exec
				}
			}
		})
	}
	defer others.Wait()
	defer close(stop)
	for range 20 {
		if out, err := exec.Command(testenv.Script(t, "exit 0\n"+strings.Repeat("# text\n", 1<<17))).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}
