package rebind

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// Reserve makes a socket of this process's own for k. With from, which it borrows,
// the socket is to take the place of that one, in the same group: one that would
// not be in it gives an error that matches reuseport's ErrForeign. Without, it has
// k's address: a TCP listener listens with Join, a datagram socket is bound at once.
func Reserve(ctx context.Context, k sockets.Key, from sockets.Handle, lc *net.ListenConfig) (*Own, error) {
	o, err := reserve(ctx, k, from, lc)
	if from == nil && errors.Is(err, unix.EADDRINUSE) {
		return o, &inUse{k.Address}
	}
	return o, explain(err)
}

func reserve(ctx context.Context, k sockets.Key, from sockets.Handle, lc *net.ListenConfig) (*Own, error) {
	address := k.Address
	var theirs traits
	if from != nil {
		var err error
		if theirs, err = traitsOf(from); err == nil {
			err = theirs.joinable()
		}
		if err != nil {
			return nil, err
		}
		address = boundTo(from)
	}
	var o *Own
	var err error
	switch {
	case k.Kind == wire.KindPacket && from == nil:
		o, err = bound(ctx, k, lc)
	case k.Kind == wire.KindPacket:
		o, err = packetConn(k, from, address, lc)
	default:
		o, err = listener(ctx, k, address, lc)
	}
	if err != nil || from == nil {
		return o, err
	}
	ours, err := traitsOf(o.Handle)
	if err == nil {
		err = theirs.with(ours)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", address, err), o.Handle.Close())
	}
	return o, nil
}

// Join has the kernel give the socket its share from now on.
func (o *Own) Join() error {
	return explain(fdx.Borrow(o.Handle, o.join))
}

func boundTo(h sockets.Handle) string {
	switch h := h.(type) {
	case net.Listener:
		return h.Addr().String()
	case net.PacketConn:
		return h.LocalAddr().String()
	}
	return ""
}

// listener binds a TCP listener, which does not listen.
func listener(ctx context.Context, k sockets.Key, address string, lc *net.ListenConfig) (*Own, error) {
	cfg := net.ListenConfig{Control: reuseport.Control(lc.Control)}
	fd, err := fdx.Bind(ctx, &cfg, k.Network, address)
	if err != nil {
		return nil, err
	}
	h, err := sockets.Open(k, fd)
	if err != nil {
		return nil, err
	}
	return &Own{Handle: h, join: func(fd int) error {
		return os.NewSyscallError("listen", unix.Listen(fd, math.MaxInt32)) // the kernel cuts it to somaxconn
	}}, nil
}

// ReserveUnix makes a unix listener for k, which listens when it joins. It takes the place
// of a socket that no process has.
func ReserveUnix(ctx context.Context, k sockets.Key, lc *net.ListenConfig) (*Own, error) {
	fd, err := fdx.Bind(ctx, lc, k.Network, k.Address)
	if err != nil && sockets.RemoveStale(k, err) {
		fd, err = fdx.Bind(ctx, lc, k.Network, k.Address)
	}
	if err != nil {
		return nil, err
	}
	h, err := sockets.Open(k, fd)
	if err != nil {
		return nil, err
	}
	return &Own{Handle: h, join: func(fd int) error {
		return os.NewSyscallError("listen", unix.Listen(fd, math.MaxInt32))
	}}, nil
}

// bound binds a datagram socket, which is in its group by that.
func bound(ctx context.Context, k sockets.Key, lc *net.ListenConfig) (*Own, error) {
	cfg := *lc
	cfg.Control = reuseport.Control(lc.Control)
	h, err := sockets.HandleOf(cfg.ListenPacket(ctx, k.Network, k.Address))
	if err != nil {
		return nil, err
	}
	return &Own{Handle: h, join: func(int) error { return nil }}, nil
}

// packetConn makes a datagram socket that is to be bound to from's address.
func packetConn(k sockets.Key, from sockets.Handle, address string, lc *net.ListenConfig) (*Own, error) {
	var sa unix.Sockaddr
	var domain, v6only int
	err := fdx.Borrow(from, func(fd int) (err error) {
		if sa, err = unix.Getsockname(fd); err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		if domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_INET6 {
			v6only, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		}
		return os.NewSyscallError("getsockopt", err)
	})
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// What net sets (setDefaultSockopts), with the other socket's IPV6_V6ONLY.
	err = os.NewSyscallError("setsockopt(SO_BROADCAST)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	network := "udp4"
	if err == nil && domain == unix.AF_INET6 {
		network = "udp6"
		err = os.NewSyscallError("setsockopt(IPV6_V6ONLY)", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only))
	}
	if err != nil {
		return nil, errors.Join(err, fdx.Close(fd))
	}
	h, err := sockets.Open(k, fd)
	if err != nil {
		return nil, err
	}
	raw, err := h.SyscallConn()
	if err == nil {
		err = reuseport.Control(lc.Control)(network, address, raw)
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &Own{Handle: h, join: func(fd int) error { return os.NewSyscallError("bind", unix.Bind(fd, sa)) }}, nil
}

// traits are what the kernel compares when a socket joins a group (inet_csk_get_port
// and reuseport_add_sock, or the lookup by which a SYN or a datagram finds it).
type traits struct {
	protocol  int
	reuseport int
	v6only    int
	device    int
	netns     uint64
	uid       uint32
}

func traitsOf(c syscall.Conn) (t traits, err error) {
	err = fdx.Borrow(c, func(fd int) error {
		var domain int
		for _, o := range []struct {
			name       string
			level, opt int
			to         *int
			newer      bool // than the oldest kernel that we support
		}{
			{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL, &t.protocol, false},
			{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, &t.reuseport, false},
			{"SO_DOMAIN", unix.SOL_SOCKET, unix.SO_DOMAIN, &domain, false},
			{"SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, &t.device, true},
		} {
			v, err := unix.GetsockoptInt(fd, o.level, o.opt)
			if err != nil && !(o.newer && errors.Is(err, unix.ENOPROTOOPT)) {
				return os.NewSyscallError("getsockopt("+o.name+")", err)
			}
			*o.to = v
		}
		if domain == unix.AF_INET6 {
			if t.v6only, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil {
				return os.NewSyscallError("getsockopt(IPV6_V6ONLY)", err)
			}
		}
		if t.netns, err = netns(fd); err != nil {
			return err
		}
		var st unix.Stat_t // the inode has the uid that the kernel compares
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		t.uid = st.Uid
		return nil
	})
	return t, err
}

// netns returns a number of the network namespace in which a socket was made: its
// cookie, or before Linux 5.14 its inode; 0 where the process may not have that.
func netns(fd int) (uint64, error) {
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return netnsInode(fd), nil
	}
	return n, os.NewSyscallError("getsockopt(SO_NETNS_COOKIE)", err)
}

// netnsInode needs CAP_NET_ADMIN in the namespace.
func netnsInode(fd int) uint64 {
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return 0
	}
	defer fdx.Close(ns)
	var st unix.Stat_t
	_ = unix.Fstat(ns, &st) // 0
	return st.Ino
}

// Foreign reports whether a socket was made in another network namespace than this
// process's; false where that is not known.
func Foreign(c syscall.Conn) (yes bool) {
	own, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer fdx.Close(own)
	_ = fdx.Borrow(c, func(fd int) error { // closed: no
		ours, err := netns(own)
		theirs, err2 := netns(fd)
		yes = err == nil && err2 == nil && ours != theirs && ours != 0 && theirs != 0
		return nil
	})
	return yes
}

// joinable reports why no socket can join the group of one with these traits.
func (t traits) joinable() error {
	switch {
	case t.protocol == unix.IPPROTO_MPTCP:
		return fmt.Errorf("the kernel can't steer an MPTCP listener: %w", reuseport.ErrForeign)
	case t.reuseport == 0:
		return fmt.Errorf("the running socket has no SO_REUSEPORT: %w", reuseport.ErrForeign)
	}
	return nil
}

// with reports why a socket with our traits would not be in one group with t's.
func (t traits) with(ours traits) error {
	switch {
	case t.netns != ours.netns:
		return fmt.Errorf("the running socket is in another network namespace: %w", reuseport.ErrForeign)
	case t.uid != ours.uid:
		return fmt.Errorf("the running socket belongs to uid %d, this process has uid %d: %w", t.uid, ours.uid, reuseport.ErrForeign)
	case t.device != ours.device:
		return fmt.Errorf("the running socket is bound to network interface %d, a new one to %d: %w", t.device, ours.device, reuseport.ErrForeign)
	case t.v6only != ours.v6only:
		return fmt.Errorf("the running socket and a new one differ in IPV6_V6ONLY: %w", reuseport.ErrForeign)
	case t.protocol != ours.protocol:
		return fmt.Errorf("the running socket has protocol %d, a new one %d: %w", t.protocol, ours.protocol, reuseport.ErrForeign)
	}
	return nil
}

// inode returns the inode of a socket, by which its duplicates are known; 0 if it is
// closed.
func inode(c syscall.Conn) uint64 {
	var st unix.Stat_t
	if err := fdx.Borrow(c, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return 0
	}
	return st.Ino
}
