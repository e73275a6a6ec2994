package spawn_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
)

// TestFolder returns the folder of a process by the path through which a release script
// leads it to the next one.
func TestFolder(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.MkdirAll(filepath.Join(root, "r1", "bin"), 0o700), os.Symlink("r1", filepath.Join(root, "current"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ wd, pwd, program, want string }{
		{"r1", "", "./app", "r1"},
		{"r1", "current", "./app", "current"},
		{"r1", "", "current/app", "current"},
		{"r1", "", "current/bin/app", "current"},
		{"r1/bin", "", "current/app", "current/bin"},
		{"r1", "", "gone/app", "r1"},
		{"r1", "", "r1/app", "r1"},
		{"", "", "current/app", ""},
	} {
		t.Chdir(filepath.Join(root, tt.wd)) // sets PWD
		pwd := tt.pwd
		if pwd != "" {
			pwd = filepath.Join(root, pwd)
		}
		t.Setenv("PWD", pwd)
		program := tt.program
		if program != "./app" {
			program = filepath.Join(root, program)
		}
		if got, err := spawn.Folder(program); err != nil || got != filepath.Join(root, tt.want) {
			t.Errorf("%s in %s, PWD=%s: Folder() = %s, %v, want %s", program, tt.wd, pwd, got, err, tt.want)
		}
	}
}

// TestStarted has a process write its title where the kernel shows its environment.
func TestStarted(t *testing.T) {
	t.Setenv("PATH", "/bin")
	for text, want := range map[string]bool{
		"PATH=/bin\x00A=1\x00":     true,
		"":                         false,
		"api: worker\x00\x00\x00":  false,
		"api: A=1\x00\x00":         false,
		"PATH=/bin\x00\x00A=1\x00": false,
	} {
		if got, ok := spawn.Started([]byte(text)); ok != want {
			t.Errorf("%q: %q, %v, want %v", text, got, ok, want)
		}
	}
}

// TestEnvironment starts a program that changes its environment: its successor has the
// one that it was started with.
func TestEnvironment(t *testing.T) {
	t.Setenv("BATON_TEST_GIVEN", "1")
	got := spawn.Environment("PATH")
	if slices.Contains(got, "BATON_TEST_GIVEN=1") {
		t.Error("the environment has a variable that the process has set itself")
	}
	if slices.ContainsFunc(got, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		t.Error("the environment has a variable that was to be left out")
	}
	if want := "HOME=" + os.Getenv("HOME"); !slices.Contains(got, want) {
		t.Errorf("the environment lacks %s", want)
	}
}
