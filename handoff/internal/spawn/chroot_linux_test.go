package spawn_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
)

// TestChrooted has the root folder be another one than when the program was found.
func TestChrooted(t *testing.T) {
	t.Parallel()
	root, err := os.Stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := spawn.WithRoot(spawn.Program{Path: "/none/app", Dir: "/"}, root)
	if err := p.Check(); !errors.Is(err, failure.Start) || !strings.Contains(fmt.Sprint(err), "chroot") {
		t.Errorf("Check() = %v, want that it names the chroot", err)
	}
}
