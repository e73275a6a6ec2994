package fdx

import (
	"encoding/binary"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Info describes the socket fd, which it borrows. It allocates only Sockname.
// For a descriptor that is not a socket the error matches [syscall.ENOTSOCK].
func Info(fd int) (SocketInfo, error) {
	return InfoInto(fd, nil)
}

// InfoInto is [Info] with Sockname appended to buf[:0], for many calls in a row
// without an allocation. 128 bytes hold every address (sockaddr_storage).
//
// A system call takes twice as long as passing a descriptor, so what follows
// from something else isn't asked for: among the sockets of AF_INET and
// AF_INET6, of which any may be raw, only stream sockets listen, and no UDP
// socket does (net/ipv4/af_inet.c and net/ipv6, inetsw; net/mptcp/protocol.c).
func InfoInto(fd int, buf []byte) (SocketInfo, error) {
	var sa [128]byte // sockaddr_storage, socket(7)
	n := uint32(len(sa))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return SocketInfo{}, os.NewSyscallError("getsockname", errno)
	}
	info := SocketInfo{Domain: int(binary.NativeEndian.Uint16(sa[:]))}
	var err error
	if info.Protocol, err = getsockopt(fd, unix.SO_PROTOCOL); err != nil {
		return SocketInfo{}, os.NewSyscallError("getsockopt(SO_PROTOCOL)", err)
	}
	ip := info.Domain == unix.AF_INET || info.Domain == unix.AF_INET6
	tcp := ip && (info.Protocol == unix.IPPROTO_TCP || info.Protocol == unix.IPPROTO_MPTCP)
	udp := ip && info.Protocol == unix.IPPROTO_UDP
	if !udp {
		listening, err := getsockopt(fd, unix.SO_ACCEPTCONN)
		if err != nil {
			return SocketInfo{}, os.NewSyscallError("getsockopt(SO_ACCEPTCONN)", err)
		}
		info.Listening = listening != 0
	}
	if tcp && info.Listening {
		info.Type = unix.SOCK_STREAM
	} else if info.Type, err = getsockopt(fd, unix.SO_TYPE); err != nil {
		return SocketInfo{}, os.NewSyscallError("getsockopt(SO_TYPE)", err)
	}
	if !tcp && !udp { // AF_SMC has addresses of AF_INET
		if info.Domain, err = getsockopt(fd, unix.SO_DOMAIN); err != nil {
			return SocketInfo{}, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
		}
	}
	info.Sockname = append(buf[:0], sa[:min(int(n), len(sa))]...)
	return info, nil
}

// getsockopt reads an integer option of SOL_SOCKET. It is a raw system call,
// without the scheduler's bookkeeping, because the kernel answers these from
// the socket's fields and never sleeps (net/core/sock.c, sk_getsockopt).
func getsockopt(fd, opt int) (int, error) {
	var v int32
	n := uint32(unsafe.Sizeof(v))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(opt), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(v), nil
}

// PeerCred returns the identity of c's peer, as the kernel noted it at connect
// or socketpair time.
func PeerCred(c *net.UnixConn) (Cred, error) {
	var cred Cred
	err := Borrow(c, func(fd int) error {
		u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return os.NewSyscallError("getsockopt(SO_PEERCRED)", err)
		}
		cred = Cred{PID: int(u.Pid), UID: int(u.Uid), GID: int(u.Gid)}
		return nil
	})
	return cred, err
}
