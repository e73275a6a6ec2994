//go:build unix

package handoff

import (
	"os"
	"syscall"
)

func defaultUpgradeSignals() []os.Signal { return []os.Signal{syscall.SIGUSR2} }
