package reuseport

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// dropSYN is a socket filter that drops SYN without ACK. On a TCP socket the
// data begins at the TCP header, whose byte 13 has the flags.
var dropSYN = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 13, Size: 1},
	bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x12},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x02, SkipFalse: 1},
	bpf.RetConstant{Val: 0},
	bpf.RetConstant{Val: ^uint32(0)},
}

func stopQueueing(c syscall.Conn) error {
	raw, err := bpf.Assemble(dropSYN)
	if err != nil {
		return err
	}
	prog := fprog(raw)
	return control(c, func(fd int) error {
		if err := plainListener(fd); err != nil {
			return err
		}
		there, err := filterOf(fd)
		if err != nil || slices.Equal(there, unsafe.Slice(prog.Filter, prog.Len)) {
			return err // nil: it is ours
		}
		if len(there) != 0 {
			return fmt.Errorf("stop queueing: the listener has a socket filter of %d instructions: %w", len(there), fs.ErrExist)
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
		runtime.KeepAlive(prog)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("stop queueing needs CAP_NET_ADMIN: %w", os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)", err))
		}
		return os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)", err)
	})
}

func resumeQueueing(c syscall.Conn) error {
	return control(c, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return os.NewSyscallError("setsockopt(SO_DETACH_FILTER)", err)
	})
}

// plainListener returns an error unless fd is a TCP listener without MPTCP.
func plainListener(fd int) error {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_PROTOCOL)", err)
	}
	switch proto {
	case unix.IPPROTO_TCP:
	case protocolMPTCP:
		return fmt.Errorf("stop queueing on an MPTCP listener, use net.ListenConfig.SetMultipathTCP(false): %w", errors.ErrUnsupported)
	default:
		return fmt.Errorf("stop queueing on a socket that is not TCP: %w", errors.ErrUnsupported)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_ACCEPTCONN)", err)
	}
	if listening == 0 {
		return fmt.Errorf("stop queueing on a socket that does not listen: %w", unix.EINVAL)
	}
	return nil
}

// filterOf returns fd's socket filter, nil if it has none.
func filterOf(fd int) (filter []unix.SockFilter, err error) {
	var n uint32 // in instructions; 0 asks for the length (sk_get_filter)
	var at unsafe.Pointer
	for range 2 {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(at), uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			return nil, os.NewSyscallError("getsockopt(SO_GET_FILTER)", errno)
		}
		if n == 0 || at != nil {
			break
		}
		filter = make([]unix.SockFilter, n)
		at = unsafe.Pointer(&filter[0])
	}
	return filter, nil
}
