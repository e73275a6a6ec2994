package main

import (
	"os/exec"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	part := func(role string) func([]string) {
		return func(args []string) {
			if _, err := takePart(role, args); err != nil {
				panic(err)
			}
		}
	}
	testmain.RunWith(m, map[string]func([]string){"service": part("service"), "clients": part("clients")})
}

// commandOf returns the command that starts the processes of a run.
func commandOf(tb testing.TB) command {
	return func(role string, args ...string) *exec.Cmd { return testmain.Command(tb, role, args...) }
}
