package procs_test

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// TestKill kills a process by its own mark, and not by another's.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mark := "BATON_PROCS=" + dir + "\x00"
	cmd := exec.Command("cat")
	cmd.Env = append(os.Environ(), "BATON_PROCS="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // killed
	defer in.Close()
	pid := cmd.Process.Pid
	if got := procs.Marked(mark); !slices.Equal(got, []int{pid}) {
		t.Errorf("Marked() = %v, want %d", got, pid)
	}
	other := "BATON_PROCS=" + dir[:len(dir)-1] + "\x00"
	if procs.Has(pid, other) {
		t.Errorf("Has() knows %d by the mark of another", pid)
	}
	procs.Kill(pid, other)
	if _, err := io.WriteString(in, "x"); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 1); true {
		if _, err := io.ReadFull(out, b); err != nil {
			t.Fatalf("after a Kill of another's the process does not answer: %v", err)
		}
	}
	procs.Kill(pid, mark)
	if _, err := io.ReadAll(out); err != nil {
		t.Error(err)
	}
	if left := procs.Marked(mark); len(left) != 0 {
		t.Errorf("Marked() = %v after Kill", left)
	}
}

// TestHasInExec looks for the mark of processes as soon as their parent's fork returns: the
// kernel sets their environment after that.
func TestHasInExec(t *testing.T) {
	t.Parallel()
	mark := "BATON_PROCS=" + t.TempDir()
	missed := 0
	for range 300 {
		cmd := exec.Command("cat")
		cmd.Env = append(os.Environ(), mark)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !procs.Has(cmd.Process.Pid, mark+"\x00") {
			missed++
		}
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if missed > 0 {
		t.Errorf("%d of 300 processes had no mark after their start", missed)
	}
}

// TestKillAll kills a process and the one that it has started, and returns after their end.
func TestKillAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mark := "BATON_PROCS=" + dir + "\x00"
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo started; cat")
	cmd.Env = append(os.Environ(), "BATON_PROCS="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // killed
	if _, err := io.ReadFull(out, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	procs.KillAll(mark)
	if left := procs.Marked(mark); len(left) != 0 {
		t.Errorf("Marked() = %v after KillAll", left)
	}
	if _, err := io.ReadAll(out); err != nil { // until the pipe's last writer has ended
		t.Error(err)
	}
}
