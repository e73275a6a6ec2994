package reuseport

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// groupKey is what the kernel compares: two sockets are in one SO_REUSEPORT group
// if all of it is the same (inet_reuseport_add_sock and udp_reuseport_add_sock,
// net/ipv4).
type groupKey struct {
	query   diag.Query
	v6only  bool
	ifindex uint32
	uid     uint32
	zone    uint32 // scope of a link-local address
}

func groupKeyOf(c syscall.Conn) (groupKey, error) {
	var k groupKey
	err := control(c, func(fd int) error {
		var err error
		if k.query, err = queryOf(fd); err != nil {
			return err
		}
		if k.query.Family == unix.AF_INET6 {
			v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				return os.NewSyscallError("getsockopt(IPV6_V6ONLY)", err)
			}
			k.v6only = v != 0
			if at, err := localAddr(fd); err == nil {
				zone, _ := strconv.ParseUint(at.Addr().Zone(), 10, 32) // 0 if there is none
				k.zone = uint32(zone)
			}
		}
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err == nil {
			k.ifindex = uint32(v) // since kernel 5.0; before that, bound sockets are few
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		k.uid = st.Uid
		return nil
	})
	return k, err
}

// members lists the sockets of the group, in no useful order.
func (k *groupKey) members(dc *diag.Conn) ([]diag.Socket, error) {
	all, err := dc.Listeners(k.query)
	return slices.DeleteFunc(all, func(m diag.Socket) bool {
		return m.Family != k.query.Family || m.Local.Addr() != k.query.Addr.Unmap() || m.V6Only != k.v6only ||
			m.Ifindex != k.ifindex || m.UID != k.uid || m.Inode == 0
	}), err
}

// self returns the address at which this process reaches the group, and the
// address family of that way. A dual-stack group is reached by IPv4, which is
// there even where IPv6 is switched off on the loopback interface.
func (k *groupKey) self() (netip.AddrPort, error) {
	if k.ifindex != 0 {
		return netip.AddrPort{}, fmt.Errorf("reach a socket that is bound to an interface: %w", unix.EOPNOTSUPP)
	}
	addr := k.query.Addr.Unmap()
	switch {
	case !addr.IsUnspecified():
	case k.query.Family == unix.AF_INET6 && k.v6only:
		addr = netip.IPv6Loopback()
	default:
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(addr, k.query.Port), nil
}

// sockaddr returns ap for a system call.
func (k *groupKey) sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port()), ZoneId: k.zone}
}

// lockName is the name of the group lock. The port is enough: groups of one port
// that differ in their address merely wait for each other.
func (k *groupKey) lockName() string {
	return fmt.Sprintf("@baton/reuseport/%d/%d/%d", k.uid, k.query.Protocol, k.query.Port)
}
