package reuseport

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// site is the place that a SO_REUSEPORT group has: two sockets are in one group
// if all of this is the same (inet_reuseport_add_sock and
// udp_reuseport_add_sock, net/ipv4).
type site struct {
	query   diag.Query
	v6only  bool
	ifindex uint32
	uid     uint32
	zone    uint32 // scope of a link-local address
}

func siteOf(c syscall.Conn) (site, error) {
	var s site
	err := control(c, func(fd int) error {
		var err error
		if s.query, err = queryOf(fd); err != nil {
			return err
		}
		if s.query.Family == unix.AF_INET6 {
			v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				return os.NewSyscallError("getsockopt(IPV6_V6ONLY)", err)
			}
			s.v6only = v != 0
			if sa, err := unix.Getsockname(fd); err == nil {
				if sa6, ok := sa.(*unix.SockaddrInet6); ok {
					s.zone = sa6.ZoneId
				}
			}
		}
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err == nil {
			s.ifindex = uint32(v) // since kernel 5.0; before that, bound sockets are few
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		s.uid = st.Uid
		return nil
	})
	return s, err
}

// list returns the members of the group, in no useful order.
func (s *site) list(dc *diag.Conn) ([]diag.Socket, error) {
	all, err := dc.Listeners(s.query)
	if err != nil {
		return nil, err
	}
	group := all[:0]
	for _, m := range all {
		if m.Family == s.query.Family && m.Local.Addr() == s.query.Addr.Unmap() && m.V6Only == s.v6only &&
			m.Ifindex == s.ifindex && m.UID == s.uid && m.Inode != 0 {
			group = append(group, m)
		}
	}
	return group, nil
}

// self returns the address at which this process reaches the group, and the
// address family of that way. A dual-stack group is reached by IPv4, which is
// there even where IPv6 is switched off on the loopback interface.
func (s *site) self() (netip.AddrPort, error) {
	if s.ifindex != 0 {
		return netip.AddrPort{}, fmt.Errorf("reach a socket that is bound to an interface: %w", unix.EOPNOTSUPP)
	}
	addr := s.query.Addr.Unmap()
	switch {
	case !addr.IsUnspecified():
	case s.query.Family == unix.AF_INET6 && s.v6only:
		addr = netip.IPv6Loopback()
	default:
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(addr, s.query.Port), nil
}

// sockaddr returns ap for a system call.
func (s *site) sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port()), ZoneId: s.zone}
}

// leaseName is the name under which processes take turns at this group. The
// port is enough: groups of one port that differ in their address merely wait
// for each other.
func (s *site) leaseName() string {
	return fmt.Sprintf("@baton/reuseport/%d/%d/%d", s.uid, s.query.Protocol, s.query.Port)
}
