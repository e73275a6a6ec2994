//go:build !linux

package inherit

import (
	"net"
	"os"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

func closeOnExec(int) {}

func cause(err error) error { return err }

func newSlot() (*os.File, *net.UnixConn, error) { return nil, nil, failure.Unsupported }

func takeSlot(*os.File) (*net.UnixConn, error) { return nil, failure.Unsupported }
