//go:build !unix

package sockets

import (
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

const msgTrunc = 0

// pathID returns the device and the inode of path.
func pathID(string) (dev, ino uint64, err error) { return 0, 0, failure.Unsupported }

// listen calls listen(2).
func listen(int, int) error { return failure.Unsupported }

func reusesPort(syscall.Conn) bool { return false }

// refuse calls shutdown(2).
func refuse(syscall.Conn) error { return failure.Unsupported }
