package fdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
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

// PeerCred returns the identity of the process that made c's other end, as the
// kernel noted it when that connected, listened, or was made by socketpair
// (SO_PEERCRED, unix(7)). For a listener it is the process that has called listen(2) last.
func PeerCred(c syscall.Conn) (Cred, error) {
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

// ExpectCred has the kernel note the sender of what c receives from now on, for
// [SenderCred] (SO_PASSCRED, unix(7)).
func ExpectCred(c *net.UnixConn) error { return passCred(c, 1) }

func passCred(c *net.UnixConn, on int) error {
	return Borrow(c, func(fd int) error {
		return os.NewSyscallError("setsockopt(SO_PASSCRED)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, on))
	})
}

// SenderCred waits for c's next byte, leaves it in the buffer, and returns the identity
// of the process that sent it. [PeerCred] does not do: the two ends of a socketpair
// have the same, in any process. SenderCred ends what [ExpectCred] has begun. It
// returns [io.EOF] at the end of the stream, and [os.ErrDeadlineExceeded] at the read
// deadline.
func SenderCred(c *net.UnixConn) (Cred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Cred{}, err
	}
	var cred Cred
	var recvErr error
	err = raw.Read(func(fd uintptr) bool {
		cred, recvErr = peekCred(int(fd))
		return !errors.Is(recvErr, unix.EAGAIN)
	})
	if err == nil { // or it has waited in vain
		err = recvErr
	}
	return cred, errors.Join(err, passCred(c, 0))
}

// peekCred has room for the identity alone: descriptors that come with it are not
// installed (net/core/scm.c, scm_recv).
func peekCred(fd int) (Cred, error) {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	var n, oobn int
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_PEEK|unix.MSG_CMSG_CLOEXEC)
	}
	switch {
	case err != nil:
		return Cred{}, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return Cred{}, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return Cred{}, fmt.Errorf("recvmsg: no SCM_CREDENTIALS: %w", errors.Join(unix.EPROTO, err))
	}
	u, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return Cred{}, os.NewSyscallError("recvmsg: control message", err)
	}
	return Cred{PID: int(u.Pid), UID: int(u.Uid), GID: int(u.Gid)}, nil
}
