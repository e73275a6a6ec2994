package rebind

import (
	"syscall"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// NetnsInode is what stands for the cookie before Linux 5.14.
func NetnsInode(c syscall.Conn) (ino uint64) {
	_ = fdx.Borrow(c, func(fd int) error { ino = netnsInode(fd); return nil }) // 0
	return ino
}
