package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		if err := takePart(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "leave:", err)
			os.Exit(1)
		}
		return
	}
	testmain.Run(m)
}

// TestLeave is the short form of make leave.
func TestLeave(t *testing.T) {
	testenv.Long(t, "handoff/handoffhttp.TestShutdown")
	for _, k := range kinds() {
		if _, err := k.command("", ""); err != nil {
			testmain.Skipped()
			t.Skip(err)
		}
	}
	var out, log bytes.Buffer
	if status := driverMain([]string{"-handovers", "5", "-requests", "20000"}, &out, &log); status != 0 || !strings.Contains(out.String(), " failed=0\n") {
		t.Errorf("status %d\n%s%s", status, out.String(), log.String())
	}
	t.Log(out.String())
}
