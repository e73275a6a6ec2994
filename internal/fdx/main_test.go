package fdx_test

import (
	"os"
	"testing"
)

// helperEnv names the helper that a re-executed test binary is to run.
const helperEnv = "BATON_FDX_TEST_HELPER"

// helpers run in child processes, where a test changes the process's limits.
var helpers = map[string]func() error{}

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
