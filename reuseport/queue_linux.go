package reuseport

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

func queueLen(c syscall.Conn) (n, backlog int, err error) {
	err = control(c, func(fd int) error {
		n, backlog, err = queueLenFD(fd)
		return err
	})
	return n, backlog, err
}

func queueLenFD(fd int) (n, backlog int, err error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt(SO_ACCEPTCONN)", err)
	}
	if listening == 0 {
		return 0, 0, fmt.Errorf("queue length of a socket that does not listen: %w", unix.EINVAL)
	}
	switch domain {
	case unix.AF_INET, unix.AF_INET6:
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOPROTOOPT) {
			return 0, 0, fmt.Errorf("queue length of a socket that is not TCP: %w", errors.ErrUnsupported)
		}
		if err != nil {
			return 0, 0, os.NewSyscallError("getsockopt(TCP_INFO)", err)
		}
		return int(info.Unacked), int(info.Sacked), nil
	case unix.AF_UNIX:
		inode, err := inodeOfFD(fd)
		if err != nil {
			return 0, 0, err
		}
		dc, err := diag.Dial()
		if err != nil {
			return 0, 0, err
		}
		defer dc.Close()
		return dc.UnixQueue(inode)
	}
	return 0, 0, fmt.Errorf("queue length of a socket of family %d: %w", domain, errors.ErrUnsupported)
}

func halfOpen(c syscall.Conn) (n int, err error) {
	var q diag.Query
	var inode uint32
	plain := false
	if err := control(c, func(fd int) error {
		if inode, err = inodeOfFD(fd); err != nil {
			return err
		}
		plain = plainListener(fd) == nil
		q, err = queryOf(fd)
		return err
	}); err != nil {
		return 0, err
	}
	if q.Protocol != unix.IPPROTO_TCP {
		return 0, fmt.Errorf("half-open handshakes of a socket that is not TCP: %w", errors.ErrUnsupported)
	}
	if plain {
		if refs, err := openRefs(q.Family); err == nil {
			defer refs.close()
			if n, err := refs.halfOpen(inode); err == nil {
				return n, nil
			}
		}
	}
	return listHalfOpen(q)
}

// listHalfOpen counts by a dump, for which the kernel goes through all TCP
// sockets of the machine.
func listHalfOpen(q diag.Query) (int, error) {
	dc, err := diag.Dial()
	if err != nil {
		return 0, err
	}
	defer dc.Close()
	tuples, err := dc.HalfOpen(q)
	return len(tuples), err
}

const protocolMPTCP = 262 // IPPROTO_MPTCP

// queryOf returns the query for sockets that share the local address of fd.
// Requests on a dual-stack listener carry its family whatever that of the
// client (inet_reqsk_alloc copies it), so one query finds them all.
func queryOf(fd int) (diag.Query, error) {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return diag.Query{}, os.NewSyscallError("getsockopt(SO_PROTOCOL)", err)
	}
	if proto == protocolMPTCP {
		proto = unix.IPPROTO_TCP // handshakes are those of its TCP subflows
	}
	at, err := localAddr(fd)
	if err != nil {
		return diag.Query{}, err
	}
	family := uint8(unix.AF_INET6)
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	return diag.Query{Family: family, Protocol: uint8(proto), Port: at.Port(), Addr: at.Addr().WithZone("")}, nil
}
