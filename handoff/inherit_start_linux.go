package handoff

import (
	"fmt"
	"strings"
	"syscall"
)

// explainText is [spawn.Program.Explain] for an error of tableflip's, which wraps with
// %s: only the text is left.
func (cfg *config) explainText(err error) error {
	for _, errno := range []syscall.Errno{
		syscall.ETXTBSY, syscall.ENOEXEC, syscall.ENOENT, syscall.EACCES, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN,
	} {
		if strings.HasSuffix(err.Error(), errno.Error()) {
			return cfg.program.Explain(errno)
		}
	}
	return fmt.Errorf("%w: %w", ErrStart, err)
}
