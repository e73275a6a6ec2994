//go:build !unix

package sockets

const msgTrunc = 0

// pathID returns the device and the inode of path.
func pathID(string) (dev, ino uint64, err error) { return 0, 0, failure.Unsupported }
