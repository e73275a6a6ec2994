//go:build !unix

package signals

import "os"

// DefaultUpgrade returns none: this system has no signal to spare.
func DefaultUpgrade() []os.Signal { return []os.Signal{} }
