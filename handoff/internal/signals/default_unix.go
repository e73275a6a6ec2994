//go:build unix

package signals

import (
	"os"
	"syscall"
)

// DefaultUpgrade returns the signals that start an upgrade by default.
func DefaultUpgrade() []os.Signal { return []os.Signal{syscall.SIGUSR2} }
