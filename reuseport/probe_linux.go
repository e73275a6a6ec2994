package reuseport

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// A process learns which place of a group is which of its sockets by asking the
// kernel: a program sends one known source port to the place, a packet from that
// port is sent to the own address, and the socket that it comes to drops it and
// counts that. All other traffic goes its normal way meanwhile.
//
// A listener drops a SYN whose TTL is below the least one that it takes (IP_MINTTL,
// tcp_v4_rcv and tcp_v6_rcv); a probe has 1. A UDP socket drops a datagram with a
// secret content, by a socket filter. So a probe never comes out of an Accept or a
// read. Sockets of other processes drop nothing: these see a connection that is
// reset at once, or a datagram.
//
// A process that is killed while it probes leaves the least TTL, or the filter, on
// sockets that others have as well. The next probe takes them off, for no other
// process probes while this one has the group lock.

// ourTTL is the least TTL of a listener that is probed.
const ourTTL = 2

// prober sends probes to the group.
type prober struct {
	t      *turn
	self   netip.AddrPort
	cookie []byte // the whole content of a datagram
}

func newProber(t *turn) (*prober, error) {
	self, err := t.key.self()
	if err != nil {
		return nil, err
	}
	p := &prober{t: t, self: self, cookie: make([]byte, cookieLen)}
	rand.Read(p.cookie)
	return p, nil
}

// locate finds the own sockets in the group of inodes. The result has, by place,
// the inode of an own socket or 0. rest says what the program does for all other
// traffic meanwhile.
func (p *prober) locate(ctx context.Context, own []*socket, inodes []uint32, rest program) (order []uint32, err error) {
	drops := slices.Concat(own, p.kin(own, inodes))
	defer func() {
		for _, s := range drops {
			if rerr := p.takeAll(s); rerr != nil && slices.Contains(own, s) {
				err = errors.Join(err, rerr)
			}
		}
	}()
	for _, s := range drops {
		if err := p.dropProbes(s); err != nil && slices.Contains(own, s) {
			return nil, err // one of the others may have closed
		}
	}
	rest.self, rest.except = p.self.Addr(), make(map[uint16]int, len(inodes))
	clients := make([]int, len(inodes))
	for place := range clients {
		fd, port, err := p.client()
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		clients[place], rest.except[port] = fd, place
	}
	if err := attach(own[0].conn, &rest); err != nil {
		return nil, err
	}
	order = make([]uint32, len(inodes))
	for place, fd := range clients {
		s, err := p.ask(ctx, fd, own)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		if slices.Contains(order, s.inode) {
			return nil, fmt.Errorf("own member at two of %d places: %w", len(order), ErrNotSteered)
		}
		order[place] = s.inode
	}
	for _, s := range own {
		if !slices.Contains(order, s.inode) {
			return nil, fmt.Errorf("own member at none of %d places: %w", len(order), ErrNotSteered)
		}
	}
	return order, nil
}

// kin returns the listeners that this process has in the group of inodes beside
// own, as members of other groups: what one group probes must not come out of
// another group's Accept.
func (p *prober) kin(own []*socket, inodes []uint32) (kin []*socket) {
	joined.Range(func(key, _ any) bool {
		if s := key.(*socket); !p.t.g.udp && !hasInode(own, s.inode) && slices.Contains(inodes, s.inode) {
			kin = append(kin, s)
		}
		return true
	})
	return kin
}

// client returns a socket that has a port of the own address.
func (p *prober) client() (fd int, port uint16, err error) {
	family, kind, level, ttl := unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	if p.self.Addr().Is4() {
		family, level, ttl = unix.AF_INET, unix.IPPROTO_IP, unix.IP_TTL
	}
	if p.t.g.udp {
		kind = unix.SOCK_DGRAM
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	if err = os.NewSyscallError("setsockopt(TTL)", unix.SetsockoptInt(fd, level, ttl, 1)); err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, p.t.key.sockaddr(netip.AddrPortFrom(p.self.Addr(), 0))))
	}
	var at netip.AddrPort
	if err == nil {
		at, err = localAddr(fd)
	}
	if err == nil && kind == unix.SOCK_STREAM { // no FIN to a member of another process
		err = os.NewSyscallError("setsockopt(SO_LINGER)", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was sent
		return -1, 0, err
	}
	return fd, at.Port(), nil
}

// ask sends a probe and returns the own socket that has dropped it, nil if none
// has.
func (p *prober) ask(ctx context.Context, fd int, own []*socket) (*socket, error) {
	before, err := drops(own)
	if err != nil {
		return nil, err
	}
	to := p.t.key.sockaddr(p.self)
	if p.t.g.udp {
		err = os.NewSyscallError("sendto", unix.Sendto(fd, p.cookie, 0, to))
	} else if err = unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EINTR) {
		err = fmt.Errorf("connect to the own address %v: %w", p.self, os.NewSyscallError("connect", err))
	} else {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	// Nearly always the probe has come before the call returns.
	const looks = 5
	for look := 0; ; look++ {
		now, err := drops(own)
		if err != nil {
			return nil, err
		}
		var hit *socket
		for i, s := range own {
			if now[i] != before[i] {
				if hit != nil {
					return nil, fmt.Errorf("own sockets drop packets of others: %w", ErrNotSteered)
				}
				hit = s
			}
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		switch {
		case !p.t.g.udp && err == nil && info.State != diag.StateSynSent:
			return nil, nil // a member of another process has taken it
		case hit != nil || look > looks:
			return hit, nil
		case look == looks:
			err = awaitGrace(ctx)
		default:
			err = sleep(ctx, 50*time.Microsecond<<look)
		}
		if err != nil {
			return nil, err
		}
	}
}

// drops returns how many packets each socket has dropped.
func drops(socks []*socket) ([]uint32, error) {
	all := make([]uint32, len(socks))
	for i, s := range socks {
		err := control(s.conn, func(fd int) error {
			const skMeminfoDrops = 8 // linux/sock_diag.h
			var mem [9]uint32
			n := uint32(unsafe.Sizeof(mem))
			_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
				uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&n)), 0)
			if errno != 0 {
				return os.NewSyscallError("getsockopt(SO_MEMINFO)", errno)
			}
			all[i] = mem[skMeminfoDrops]
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// dropProbes makes s drop probes; takeAll makes it take all packets again.
func (p *prober) dropProbes(s *socket) error {
	if err := p.takeAll(s); err != nil {
		return err
	}
	if !p.t.g.udp {
		return p.changeTTL(s, func(least int) int { return max(least, ourTTL) })
	}
	raw, err := bpf.Assemble(dropCookie(p.cookie))
	if err != nil {
		return err
	}
	prog := fprog(raw)
	return control(s.conn, func(fd int) error {
		err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
		runtime.KeepAlive(prog)
		return os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)", err)
	})
}

func (p *prober) takeAll(s *socket) error {
	if !p.t.g.udp {
		return p.changeTTL(s, func(least int) int {
			if least == ourTTL {
				return 0
			}
			return least // the user's, which drops probes as well
		})
	}
	ours, err := bpf.Assemble(dropCookie(p.cookie))
	if err != nil {
		return err
	}
	return control(s.conn, func(fd int) error {
		there, err := filterOf(fd)
		if err != nil || len(there) == 0 {
			return err
		}
		// That of a process which was killed differs in the cookie.
		same := func(a unix.SockFilter, b bpf.RawInstruction) bool {
			return a.Code == b.Op && a.Jt == b.Jt && a.Jf == b.Jf
		}
		if !slices.EqualFunc(there, ours, same) {
			return fmt.Errorf("the socket has a filter: %w", errors.ErrUnsupported)
		}
		return os.NewSyscallError("setsockopt(SO_DETACH_FILTER)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	})
}

// changeTTL changes the least TTL of the packets that s takes.
func (p *prober) changeTTL(s *socket, change func(least int) int) error {
	level, opt := unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT
	if p.self.Addr().Is4() {
		level, opt = unix.IPPROTO_IP, unix.IP_MINTTL
	}
	return control(s.conn, func(fd int) error {
		least, err := unix.GetsockoptInt(fd, level, opt)
		if err == nil {
			err = unix.SetsockoptInt(fd, level, opt, change(least))
		}
		return os.NewSyscallError("sockopt(IP_MINTTL)", err)
	})
}

const cookieLen = 16

// dropCookie is a filter for datagrams that are the cookie. On a UDP socket the
// data begins at the UDP header. A load past the end would drop any datagram, so
// the length comes first.
func dropCookie(cookie []byte) []bpf.Instruction {
	const header = 8
	ins := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: header + cookieLen, SkipTrue: 2*cookieLen/4 + 1},
	}
	for i := 0; i < cookieLen; i += 4 {
		ins = append(ins,
			bpf.LoadAbsolute{Off: uint32(header + i), Size: 4},
			bpf.JumpIf{
				Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(cookie[i:]),
				SkipTrue: uint8(2*(cookieLen-i)/4 - 1),
			})
	}
	return append(ins, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: ^uint32(0)})
}
