package main

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	if os.Getenv(envRole) != "" {
		takePart()
		return
	}
	testmain.Run(m)
}

// TestTLSMove is the program in short: no client of any kind loses a request or its
// connection.
func TestTLSMove(t *testing.T) {
	testenv.Long(t, "handoff/handoffhttp.TestOverTLS")
	for _, program := range []string{"python3", "curl", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no client: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		r, err := run(ctx, mode, 3, 16)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if r.Failed != 0 || r.Wrong != 0 || r.handshakes != r.Connections || r.moves < r.upgrades {
			t.Errorf("%s: %s", mode, r)
		}
		t.Logf("%s: %s", mode, r)
	}
}
