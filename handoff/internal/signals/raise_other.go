//go:build !linux

package signals

import "os"

func raise(os.Signal) {}
