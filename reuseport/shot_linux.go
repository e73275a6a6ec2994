package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// shot is a probe with its socket, and the index it is sent to.
type shot struct {
	*probe
	fd    int
	index int
	mark  int       // of the listener that it came to
	sock  *socket   // that listener, if it is an own one; if several have the mark, one of them
	in    []*socket // listeners of this process in whose queue it may be
}

// aim reserves a source port for each index and adds it to prog. The caller ends
// the shots.
func (p *prober) aim(prog *program, indexes []int) ([]*shot, error) {
	var shots []*shot
	prog.self, prog.except = p.self.Addr(), make(map[uint16]int, len(indexes))
	for _, index := range indexes {
		s, err := p.load(index)
		if err != nil {
			p.end(shots)
			return nil, err
		}
		shots = append(shots, s)
		if index != anyIndex {
			prog.except[s.tuple.Remote.Port()] = index
		}
	}
	return shots, nil
}

// load makes one shot, which has a source port and is not connected.
func (p *prober) load(index int) (_ *shot, err error) {
	family := unix.AF_INET6
	if p.self.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // nothing was sent
		}
	}()
	if err := unix.Bind(fd, p.site.sockaddr(netip.AddrPortFrom(p.self.Addr(), 0))); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	port, err := portOf(fd)
	if err != nil {
		return nil, err
	}
	t := diag.Tuple{Local: p.self, Remote: netip.AddrPortFrom(p.self.Addr(), port)}
	return &shot{probe: probes.add(p.c, t), fd: fd, index: index}, nil
}

func portOf(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, unix.EAFNOSUPPORT
}

// anyIndex as an aim means to go the way of all traffic.
const anyIndex = -1

// probeTime bounds a probe. On the loopback interface it takes 100 µs.
const probeTime = 2 * time.Second

// fire connects s and finds out where it came to.
func (p *prober) fire(ctx context.Context, s *shot) error {
	if over, err := s.connected(connectTimeout(s.fd, p.site.sockaddr(p.self))); err != nil {
		return fmt.Errorf("connect to the own address %v: %w", p.self, err)
	} else if over {
		return nil
	}
	family := uint8(unix.AF_INET6)
	if p.self.Addr().Is4() {
		family = unix.AF_INET
	}
	deadline := time.NewTimer(probeTime)
	defer deadline.Stop()
	for try := 0; ; try++ {
		child, err := p.dc.Lookup(family, s.tuple)
		switch {
		case err == nil && child.State != diag.StateSynRecv:
			if child.State == diag.StateFinWait2 || child.State == diag.StateTimeWait {
				return nil // somebody else's: he has hung up, and the kernel keeps only the remains
			}
			if !child.HasSockopts {
				return fmt.Errorf("options of a connection in sock_diag, which kernel 5.13 has: %w", errors.ErrUnsupported)
			}
			s.mark = p.markOf(child)
			return nil
		case err != nil && !errors.Is(err, unix.ENOENT):
			return err
		case err != nil && s.isReset():
			s.wasReset()
			return nil
		}
		if try == 3 {
			// With TCP_DEFER_ACCEPT there is no child before there are data.
			_, _ = unix.Write(s.fd, []byte{0}) // a reset shows in the next look
		}
		wait := time.NewTimer(min(time.Duration(try)*20*time.Microsecond, 5*time.Millisecond))
		select {
		case s.sock = <-s.landed:
			wait.Stop()
			return nil
		case <-wait.C:
		case <-deadline.C:
			wait.Stop()
			return fmt.Errorf("find the own connection from %v: %w", s.tuple.Remote, os.ErrDeadlineExceeded)
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// connected takes what connect(2) has returned, and reports whether the shot is
// over. On a busy machine Accept can have taken the connection and reset it
// before connect(2) has seen that it is there; somebody else's can, too.
func (s *shot) connected(err error) (over bool, _ error) {
	if !errors.Is(err, unix.ECONNRESET) {
		return false, err
	}
	s.wasReset()
	return true, nil
}

// wasReset notes who has reset the connection: an Accept of ours says so before,
// else it was somebody else's.
func (s *shot) wasReset() {
	select {
	case s.sock = <-s.landed:
	default:
	}
}

// isReset reports whether the connection, which was there, is gone.
func (s *shot) isReset() bool {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == diag.StateClose
}

// end resets the probes. Those that can be in a queue of this process stay known
// until they come out of it, and keep their port: another client that got it
// would be taken for the probe.
func (p *prober) end(shots []*shot) {
	for _, s := range shots {
		if len(s.in) == 0 {
			s.reset()
			probes.forget(s.probe)
			continue
		}
		s.disconnect(p.site.sockaddr(s.tuple.Remote))
		if !probes.keep(s.probe, s.in, s.reset) {
			s.reset()
			continue
		}
		for _, in := range s.in {
			if !probes.knows(in) {
				probes.left(in) // closed by its user meanwhile
			}
		}
	}
}

// reset closes the client's end without a FIN.
func (s *shot) reset() {
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(s.fd)
}

// disconnect resets the connection and keeps its port, which connect(2) with
// AF_UNSPEC lets go of, because the kernel had chosen it (tcp_disconnect).
func (s *shot) disconnect(self unix.Sockaddr) {
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(s.fd), uintptr(unsafe.Pointer(&unspec)), unix.SizeofSockaddrInet4)
	if errno == 0 {
		_ = unix.Bind(s.fd, self) // if it fails, others can have the port
	}
}

// connectTimeout connects the blocking socket fd within probeTime.
func connectTimeout(fd int, sa unix.Sockaddr) error {
	tv := unix.NsecToTimeval(probeTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return os.NewSyscallError("setsockopt(SO_SNDTIMEO)", err)
	}
	for {
		err := unix.Connect(fd, sa)
		switch {
		case errors.Is(err, unix.EINTR):
			continue // the second call waits for the first one's end
		case errors.Is(err, unix.EISCONN):
			return nil
		}
		return os.NewSyscallError("connect", err)
	}
}
