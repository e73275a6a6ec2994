package flows

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// A process learns what the program of a group does by sending datagrams to its own
// address: each lane drops a datagram with a secret content, by a socket filter, and
// counts that. So no reader sees a probe.

const (
	cookieLen = 16
	udpHeader = 8
)

// A prober sends probes to a group.
type prober struct {
	g      group
	cookie []byte
	to     unix.Sockaddr
	fd     int // it sends
}

// errBlind says that probes can't show what the program does.
var errBlind = errors.New("probes do not reach the lanes")

// newProber has the lanes drop probes until close.
func newProber(g group) (*prober, error) {
	p := &prober{g: g, cookie: make([]byte, cookieLen), fd: -1}
	rand.Read(p.cookie)
	to, err := unix.Getsockname(g[0])
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	family := unix.AF_INET6
	switch a := to.(type) {
	case *unix.SockaddrInet4:
		family = unix.AF_INET
		if a.Addr == [4]byte{} {
			a.Addr = [4]byte{127, 0, 0, 1}
		}
	case *unix.SockaddrInet6:
		if a.Addr == [16]byte{} {
			a.Addr[15] = 1
			if only, err := unix.GetsockoptInt(g[0], unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err == nil && only == 0 {
				to, family = &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET
			}
		}
	}
	p.to = to
	if device, err := unix.GetsockoptString(g[0], unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err == nil && device != "" {
		return nil, fmt.Errorf("%w: they are bound to %s", errBlind, device)
	}
	if p.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if cookieOf(p.fd) != cookieOf(g[0]) {
		p.close()
		return nil, fmt.Errorf("%w: they are in another network namespace", errBlind)
	}
	raw, err := bpf.Assemble(p.filter())
	if err != nil {
		p.close()
		return nil, err
	}
	prog := fprog(raw)
	for _, fd := range g {
		if !replaceable(fd, raw) {
			continue // the user's filter stays, and no probe is seen there
		}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
			p.close()
			return nil, fmt.Errorf("%w: %w", errBlind, os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)", err))
		}
	}
	runtime.KeepAlive(prog)
	return p, nil
}

// cookieOf is the number of the socket's network namespace, 0 before Linux 5.14.
func cookieOf(fd int) uint64 {
	n, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE) // 0
	return n
}

// filter drops what ends with the cookie. On a UDP socket the data begins at the UDP
// header. A load past the end would drop any datagram, so the length comes first.
func (p *prober) filter() []bpf.Instruction {
	ins := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: udpHeader + cookieLen, SkipTrue: 2*cookieLen/4 + 3},
		bpf.ALUOpConstant{Op: bpf.ALUOpSub, Val: cookieLen},
		bpf.TAX{},
	}
	for i := 0; i < cookieLen; i += 4 {
		ins = append(ins,
			bpf.LoadIndirect{Off: uint32(i), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(p.cookie[i:]), SkipTrue: uint8(2*(cookieLen-i)/4 - 1)})
	}
	return append(ins, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: ^uint32(0)})
}

// replaceable reports whether fd has no filter, or one of a prober that was killed, which
// differs from ours in the cookie.
func replaceable(fd int, ours []bpf.RawInstruction) bool {
	var there [64]unix.SockFilter
	n := uint32(len(there)) // in instructions
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&there)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return false
	}
	if n == 0 {
		return true
	}
	if int(n) != len(ours) {
		return false
	}
	for i, o := range ours {
		if t := there[i]; t.Code != o.Op || t.Jt != o.Jt || t.Jf != o.Jf {
			return false
		}
	}
	return true
}

// close has the lanes take all datagrams again.
func (p *prober) close() {
	if ours, err := bpf.Assemble(p.filter()); err == nil {
		for _, fd := range p.g {
			if replaceable(fd, ours) {
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // ENOENT: there is none
			}
		}
	}
	if p.fd >= 0 {
		_ = unix.Close(p.fd) // nothing waits in it
	}
}

// content returns a probe: for a lane among n, or of no flow for lane -1.
func (p *prober) content(k key, d *IDs, lane, n int) []byte {
	head := cookieLen
	for _, f := range d.Forms {
		head = max(head, d.end(f))
	}
	b := make([]byte, head, head+cookieLen)
	for {
		rand.Read(b)
		if lane >= 0 {
			f := d.Forms[0]
			b[0] = b[0]&^f.Mask | f.Value
			if f.LenAt > 0 {
				b[f.LenAt] = byte(d.Len)
			}
			k.mark(b[f.At:f.At+d.Len], lane, n)
		}
		if whole := append(bytes.Clone(b), p.cookie...); k.lane(d, whole, n) == lane {
			return whole
		}
	}
}

// ask sends a probe and returns the lane that it came to.
func (p *prober) ask(probe []byte) (int, error) {
	const tries, looks = 3, 8
	for try := 0; ; try++ {
		before, err := p.drops()
		if err != nil {
			return -1, err
		}
		if err := unix.Sendto(p.fd, probe, 0, p.to); err != nil {
			return -1, fmt.Errorf("%w: %w", errBlind, os.NewSyscallError("sendto", err))
		}
		hit, hits := -1, 0
		for look := 0; look < looks && hits == 0; look++ {
			if look > 0 { // nearly always the probe has come before the call returns
				time.Sleep(50 * time.Microsecond << look)
			}
			now, err := p.drops()
			if err != nil {
				return -1, err
			}
			for i := range now {
				if now[i] != before[i] {
					hit, hits = i, hits+1
				}
			}
		}
		if hits == 1 || try == tries {
			return hit, nil
		}
		// None: it was lost, or another socket has it. Several: lanes were full.
	}
}

// drops returns how many datagrams each lane has dropped.
func (p *prober) drops() ([]uint32, error) {
	all := make([]uint32, len(p.g))
	for i, fd := range p.g {
		const skMeminfoDrops = 8 // linux/sock_diag.h
		var mem [9]uint32
		n := uint32(unsafe.Sizeof(mem))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			return nil, os.NewSyscallError("getsockopt(SO_MEMINFO)", errno)
		}
		all[i] = mem[skMeminfoDrops]
	}
	return all, nil
}

// verify asks whether the program of the group does what r says: for datagrams of no flow,
// and for the lanes by their IDs. errBlind says that it can't be seen.
func (g group) verify(r *route, lanes ...int) error {
	p, err := newProber(g)
	if err != nil {
		return err
	}
	defer p.close()
	want := map[int]int{-1: r.current}
	if len(r.ids.Forms) > 0 {
		for _, l := range lanes {
			want[l] = l
		}
	}
	for lane, to := range want {
		got, err := p.ask(p.content(r.key, &r.ids, lane, r.lanes))
		if err != nil {
			return err
		}
		if got != to {
			return fmt.Errorf("%w: the kernel sends a probe for lane %d to lane %d: another process of this user has a socket on the address, or has set a steering program", failure.Unsupported, to, got)
		}
	}
	return nil
}
