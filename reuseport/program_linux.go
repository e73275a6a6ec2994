package reuseport

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// attach makes p the program of c's group; detach takes any program off.
func attach(c syscall.Conn, p *program) error {
	raw, err := p.assemble()
	if err != nil {
		return err
	}
	prog := fprog(raw)
	return control(c, func(fd int) error {
		err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, prog)
		runtime.KeepAlive(prog)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("steer a group of MPTCP listeners, use net.ListenConfig.SetMultipathTCP(false): %w", os.NewSyscallError("setsockopt(SO_ATTACH_REUSEPORT_CBPF)", err))
		}
		return os.NewSyscallError("setsockopt(SO_ATTACH_REUSEPORT_CBPF)", err)
	})
}

func detach(c syscall.Conn) error {
	return control(c, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // there was none
		}
		return os.NewSyscallError("setsockopt(SO_DETACH_REUSEPORT_BPF)", err)
	})
}

func fprog(raw []bpf.RawInstruction) *unix.SockFprog {
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
}
