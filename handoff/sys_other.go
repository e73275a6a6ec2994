//go:build !linux

package handoff

import (
	"net"
	"os"
)

func unsupported() error { return supported() }

func newMailbox() (*os.File, *net.UnixConn, error) { return nil, nil, unsupported() }

func openMailbox(*os.File) (*net.UnixConn, error) { return nil, unsupported() }

func (*config) explainText(err error) error { return err }
