package spawn

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// Explain turns the usual errors of a start into advice.
func (p *Program) Explain(err error) error {
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w: %s is being written: install a new version by rename, not by overwriting it: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: %s is not built for this machine, or a script without #!: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.ENOENT): // Check has found the program
		return fmt.Errorf("%w: the interpreter or loader that %s names does not exist: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: %s may not be executed: chmod +x it, and mount its file system without noexec: %w", failure.Start, p.Path, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w: no descriptors left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=): %w", failure.Start, err)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("%w: no process left for this user: raise RLIMIT_NPROC (ulimit -u, TasksMax=): %w", failure.Start, err)
	}
	return fmt.Errorf("%w: %w", failure.Start, err)
}
