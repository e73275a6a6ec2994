package handoff

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// checkInherit is [spawn.Program.Check] for what tableflip starts: os.Args[0], looked up
// again.
func (cfg *config) checkInherit() error {
	arg := os.Args[0]
	if !strings.Contains(arg, string(os.PathSeparator)) {
		if _, err := exec.LookPath(arg); err != nil {
			return fmt.Errorf("%w: %q was found in PATH when this process started, and is not now: %w", ErrStart, arg, err)
		}
		return nil
	}
	if !filepath.IsAbs(arg) {
		if wd, err := os.Getwd(); err != nil || wd != cfg.program.Dir {
			return fmt.Errorf("%w: %w: %q is relative and the working directory has changed: start the program by its absolute path, or use mode Takeover", ErrUnsupported, ErrStart, arg)
		}
	}
	return cfg.program.Check()
}

// explainInherit is [spawn.Program.Explain] for what tableflip's Upgrade returns.
func (cfg *config) explainInherit(err error) error {
	if !strings.HasPrefix(err.Error(), "can't start child") {
		return err
	}
	return cfg.explainText(err)
}

// killInherited kills the child that tableflip has started, whose process ID tableflip
// does not return.
func (u *Upgrader) killInherited(up *upgrade) {
	pid := int(up.peer.Load())
	if pid == 0 {
		pid = procs.Child(envTableflip + "=")
	}
	if pid <= 0 {
		return // it has ended, or tableflip's own timeout kills it
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // has no effect on one that has ended
	}
}
