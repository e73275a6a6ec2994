//go:build !linux

package spawn

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// Explain adds that the start has failed.
func (p *Program) Explain(err error) error { return fmt.Errorf("%w: %w", failure.Start, err) }

func newPipe(*os.File) (r, w *os.File, err error) { return os.Pipe() }

func journalVia(int) string { return "" }

func replaceStderr(int) error { return failure.Unsupported }

func placePipe(int, int) error { return failure.Unsupported }

// Watcher is not known here.
func Watcher() string { return "" }

// awaitEnd waits for the end of a child of this process.
func awaitEnd(cmd *exec.Cmd) error { return cmd.Wait() }

func reap(*exec.Cmd) {}
