package procs_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// TestDescends knows a child, and a grandchild as a wrapper has it, for a descendant,
// and neither this process, nor its parent, nor one that has ended.
func TestDescends(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", "cat <&3 & echo $!; exec 3<&-; wait")
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, grandchild := cmd.Process.Pid, 0
	if _, err := fmt.Fscan(out, &grandchild); err != nil {
		t.Error(err)
	}
	for pid, want := range map[int]bool{child: true, grandchild: true, os.Getpid(): false, os.Getppid(): false, 1: false, 0: false} {
		if procs.Descends(pid) != want {
			t.Errorf("process %d descends: %t, want %t (child %d, grandchild %d)", pid, !want, want, child, grandchild)
		}
	}
	_ = w.Close() // a pipe: both end
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if procs.Descends(grandchild) {
		t.Error("one that has ended is taken for a descendant")
	}
}
