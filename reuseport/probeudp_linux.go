package reuseport

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A UDP socket has no children, so its place is found in another way: the own
// sockets get a socket filter that drops datagrams with a secret content, and
// their counts of drops tell how many datagrams have come to each. They never come
// out of a read.

// cookieLen is the length of the secret, which is the whole datagram.
const cookieLen = 16

// dropCookie is a filter for the secret. On a UDP socket the data begins at the
// UDP header. A load past the end would drop any datagram, so the length comes
// first.
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

// locateUDP is locate for UDP. The places are numbered, and in each round the
// number of datagrams that are sent to a place shows one digit of its number.
func (p *prober) locateUDP(ctx context.Context, own []*socket, n int, rest program) (order []uint32, err error) {
	cookie := make([]byte, cookieLen)
	rand.Read(cookie)
	defer func() {
		for _, s := range own {
			err = errors.Join(err, p.unfilter(s))
		}
	}()
	for _, s := range own {
		if err := p.filter(s, cookie); err != nil {
			return nil, err
		}
	}
	for range maxTries {
		var again []uint32
		order, err = p.countDrops(ctx, own, n, cookie, rest)
		if err == nil && n == len(own) {
			return order, nil // and the sum is that of the datagrams
		}
		// Drops of another kind can have raised a count, so that it is done twice.
		if err == nil {
			again, err = p.countDrops(ctx, own, n, cookie, rest)
		}
		if err == nil && slices.Equal(order, again) {
			return order, nil
		}
		if err != nil && !errors.Is(err, ErrNotSteered) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("datagrams to oneself were lost, or others dropped: %w", ErrNotSteered)
}

func (p *prober) countDrops(ctx context.Context, own []*socket, n int, cookie []byte, rest program) ([]uint32, error) {
	prog := rest
	prog.self, prog.except = p.self.Addr(), make(map[uint16]int, n)
	clients := make([]int, n)
	for place := range n {
		fd, client, err := p.socket(unix.SOCK_DGRAM)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		clients[place] = fd
		prog.except[client.Port()] = place
	}
	if err := attach(own[0].conn, &prog); err != nil {
		return nil, err
	}
	const base = 8
	found := make([]int, len(own)) // the place
	for unit := 1; unit == 1 || unit < n; unit *= base {
		before, dropped, err := drops(own)
		if err != nil {
			return nil, err
		}
		for place, fd := range clients {
			for range 1 + place/unit%base {
				if err := unix.Sendto(fd, cookie, 0, p.t.key.sockaddr(p.self)); err != nil {
					return nil, os.NewSyscallError("sendto", err)
				}
				dropped++
			}
		}
		if n > len(own) { // it is not known how many come to own sockets
			if err := awaitGrace(ctx); err != nil {
				return nil, err
			}
		}
		now, sum, err := drops(own)
		for end := time.Now().Add(settleTime); n == len(own) && sum != dropped && time.Now().Before(end) && err == nil; {
			now, sum, err = drops(own)
		}
		if err != nil {
			return nil, err
		}
		if n == len(own) && sum != dropped {
			return nil, fmt.Errorf("own sockets dropped %d datagrams more than were sent to them: %w", int32(sum-dropped), ErrNotSteered)
		}
		for i := range own {
			digit := int(now[i]-before[i]) - 1
			if digit < 0 || digit >= base {
				return nil, fmt.Errorf("an own socket dropped %d datagrams: %w", digit+1, ErrNotSteered)
			}
			found[i] += digit * unit
		}
	}
	order := make([]uint32, n)
	for i, place := range found {
		if place >= n || order[place] != 0 {
			return nil, fmt.Errorf("own socket at place %d of %d: %w", place, n, ErrNotSteered)
		}
		order[place] = own[i].inode
	}
	return order, nil
}

// filter puts the filter on, unless the user has one.
func (p *prober) filter(s *socket, cookie []byte) error {
	if err := p.unfilter(s); err != nil {
		return err
	}
	raw, err := bpf.Assemble(dropCookie(cookie))
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

// unfilter takes the filter off. That of a process which was killed while it probed
// differs in the secret.
func (p *prober) unfilter(s *socket) error {
	ours, err := bpf.Assemble(dropCookie(make([]byte, cookieLen)))
	if err != nil {
		return err
	}
	return control(s.conn, func(fd int) error {
		there, err := filterOf(fd)
		if err != nil || len(there) == 0 {
			return err
		}
		same := func(a unix.SockFilter, b bpf.RawInstruction) bool {
			return a.Code == b.Op && a.Jt == b.Jt && a.Jf == b.Jf
		}
		if !slices.EqualFunc(there, ours, same) {
			return fmt.Errorf("the socket has a filter: %w", errors.ErrUnsupported)
		}
		return os.NewSyscallError("setsockopt(SO_DETACH_FILTER)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	})
}

// drops returns how many datagrams each socket has dropped, and all of them.
func drops(socks []*socket) (all []uint32, sum uint32, err error) {
	all = make([]uint32, len(socks))
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
			sum += all[i]
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return all, sum, nil
}
