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
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A UDP socket has no children, so its index is found in another way: the own
// sockets get a socket filter that drops datagrams with a secret content, and
// the one whose count of drops goes up is the one that the datagram came to.
// Nobody reads it.

// cookieLen is the length of the secret, which is the whole datagram.
const cookieLen = 16

// dropCookie is a filter for the secret. On a UDP socket the data begins at the
// UDP header. A load past the end would drop any datagram, so the length comes
// first.
func dropCookie(cookie [cookieLen]byte) []bpf.Instruction {
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

// locateUDP is locate for UDP.
func (p *prober) locateUDP(ctx context.Context, own []*socket, n int, rest program) (order []uint32, err error) {
	var cookie [cookieLen]byte
	rand.Read(cookie[:])
	for i, s := range own {
		if err := setFilter(s, dropCookie(cookie)); err != nil {
			for _, s := range own[:i] {
				err = errors.Join(err, resumeQueueing(s.conn)) // takes any filter off
			}
			return nil, err
		}
	}
	defer func() {
		for _, s := range own {
			err = errors.Join(err, resumeQueueing(s.conn))
		}
	}()

	order = make([]uint32, n)
	missing := len(own)
	for try := 0; try < maxTries && missing > 0; try++ {
		for index := range n {
			if order[index] != 0 {
				continue
			}
			hit, err := p.sendTo(ctx, own, index, cookie, rest)
			if err != nil {
				return nil, err
			}
			if hit == nil {
				continue
			}
			// A drop of its own kind can have raised the count.
			if again, err := p.sendTo(ctx, own, index, cookie, rest); err != nil || again != hit {
				continue
			}
			if at := slices.Index(order, hit.inode); at >= 0 {
				order[at] = 0 // one of the two is wrong: look again for both
				missing++
				continue
			}
			order[index] = hit.inode
			missing--
		}
	}
	if missing != 0 {
		return nil, fmt.Errorf("%d of %d own sockets not found: %w", missing, len(own), ErrNotSteered)
	}
	return order, nil
}

// sendTo sends the cookie to index and returns the own socket that dropped it,
// if there is exactly one.
func (p *prober) sendTo(ctx context.Context, own []*socket, index int, cookie [cookieLen]byte, rest program) (*socket, error) {
	family := unix.AF_INET6
	if p.self.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, p.site.sockaddr(netip.AddrPortFrom(p.self.Addr(), 0))); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	port, err := portOf(fd)
	if err != nil {
		return nil, err
	}
	prog := rest
	prog.self, prog.except = p.self.Addr(), map[uint16]int{port: index}
	if err := attach(own[0].conn, &prog); err != nil {
		return nil, err
	}
	before, err := allDrops(own)
	if err != nil {
		return nil, err
	}
	if err := unix.Sendto(fd, cookie[:], 0, p.site.sockaddr(p.self)); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	// The datagram is on its way through this machine only.
	if err := awaitGrace(ctx); err != nil {
		return nil, err
	}
	now, err := allDrops(own)
	if err != nil {
		return nil, err
	}
	var hit *socket
	for i, s := range own {
		if now[i] != before[i] {
			if hit != nil {
				return nil, nil
			}
			hit = s
		}
	}
	return hit, nil
}

// setFilter attaches a socket filter, unless the user has one.
func setFilter(s *socket, ins []bpf.Instruction) error {
	raw, err := bpf.Assemble(ins)
	if err != nil {
		return err
	}
	prog := fprog(raw)
	return control(s.conn, func(fd int) error {
		switch n, err := filterLen(fd); {
		case err != nil:
			return err
		case n != 0:
			return fmt.Errorf("the socket has a filter: %w", errors.ErrUnsupported)
		}
		err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
		runtime.KeepAlive(prog)
		return os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)", err)
	})
}

// allDrops returns how many datagrams each socket has dropped.
func allDrops(socks []*socket) ([]uint32, error) {
	drops := make([]uint32, len(socks))
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
			drops[i] = mem[skMeminfoDrops]
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return drops, nil
}
