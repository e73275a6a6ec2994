//go:build !unix

package handoff

import "os"

func defaultUpgradeSignals() []os.Signal { return []os.Signal{} }
