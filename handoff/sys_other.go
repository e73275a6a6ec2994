//go:build !linux

package handoff

import (
	"fmt"
	"net"
	"os"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("%w on %s: Linux is", ErrUnsupported, runtime.GOOS)
}

func supported() error { return unsupported() }

func raise(os.Signal) {}

func newMailbox() (*os.File, *net.UnixConn, error) { return nil, nil, unsupported() }

func openMailbox(*os.File) (*net.UnixConn, error) { return nil, unsupported() }

func (*config) explainText(err error) error { return err }
