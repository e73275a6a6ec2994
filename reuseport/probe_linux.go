package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/probes"
	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// A process learns which place of a group is which of its sockets by asking the
// kernel: a program sends one known source port to the place, a connection from
// that port is made, and sock_diag tells whose child the server's end of it is.
// All other traffic goes its normal way meanwhile.
//
// A child inherits the flags of its listener, so a listener is marked for the
// time by flags that mean nothing to TCP, and are in what sock_diag reports
// (since kernel 5.13). That works without accepting the connection, on
// listeners of other processes too, which are those without a mark. They see a
// connection that is reset at once.
//
// A process that is killed while it probes leaves its marks. On listeners that
// this process has as well, the next probe takes them off, for no other process
// marks while this one has the group lock. Marks that listeners of others show are
// not used.

// markFlags are socket options without effect on TCP.
var markFlags = [...]struct {
	opt  int
	bit  uint16 // in diag.Socket.Sockopts
	name string
}{
	{unix.IP_MULTICAST_LOOP, diag.OptMulticastLoop, "IP_MULTICAST_LOOP"},
	{unix.IP_MULTICAST_ALL, diag.OptMulticastAll, "IP_MULTICAST_ALL"},
	{unix.IP_BIND_ADDRESS_NO_PORT, diag.OptNoPortBind, "IP_BIND_ADDRESS_NO_PORT"},
}

// allMarks is the number of marks, with that of an unmarked listener, which is 0.
const allMarks = 1 << len(markFlags)

// prober makes connections to the group, or sends datagrams to it.
type prober struct {
	t     *turn
	self  netip.AddrPort
	plain int   // flags of an unmarked listener, which differ between the families
	marks []int // to be used
}

func newProber(t *turn) (*prober, error) {
	self, err := t.key.self()
	if err != nil {
		return nil, err
	}
	p := &prober{t: t, self: self}
	if t.g.udp {
		return p, nil
	}
	fd, err := unix.Socket(int(t.key.query.Family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for i, f := range markFlags {
		v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, f.opt)
		if err != nil {
			return nil, os.NewSyscallError("getsockopt("+f.name+")", err)
		}
		p.plain |= v & 1 << i
	}
	return p, nil
}

// chooseMarks finds the marks that no listener of others has.
func (p *prober) chooseMarks(own []*socket) error {
	group, err := p.t.key.members(p.t.dc)
	if err != nil {
		return err
	}
	p.marks = nil
	for mark := 1; mark < allMarks; mark++ {
		if !slices.ContainsFunc(group, func(m diag.Socket) bool { return p.markOf(m) == mark && !hasInode(own, m.Inode) }) {
			p.marks = append(p.marks, mark)
		}
	}
	if len(p.marks) == 0 || len(p.marks) == 1 && len(own) > 1 {
		return fmt.Errorf("all socket options that could mark a listener are in use: %w", errors.ErrUnsupported)
	}
	return nil
}

// setMark marks s; 0 takes the mark off.
func (p *prober) setMark(s *socket, mark int) error {
	return control(s.conn, func(fd int) error {
		for i, f := range markFlags {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, f.opt, (p.plain^mark)>>i&1); err != nil {
				return os.NewSyscallError("setsockopt("+f.name+")", err)
			}
		}
		return nil
	})
}

// markOf returns the mark in what sock_diag says.
func (p *prober) markOf(s diag.Socket) int {
	flags := 0
	for i, f := range markFlags {
		if s.Sockopts&f.bit != 0 {
			flags |= 1 << i
		}
	}
	return flags ^ p.plain
}

// probe is one connection to the own address.
type probe struct {
	*probes.Probe
	fd     int
	client netip.AddrPort
	place  int    // that it is sent to
	mark   int    // of the listener that it came to; 0 for those of others
	inode  uint32 // of that listener, if it is ours
}

// locate finds the own sockets among the n members. The result has, by place,
// the inode of an own socket or 0. rest says what the program does for all other
// traffic meanwhile.
//
// The sockets are numbered, and in each round a mark shows one digit of a socket's
// number.
func (p *prober) locate(ctx context.Context, own []*socket, n int, rest program) ([]uint32, error) {
	if err := p.chooseMarks(own); err != nil {
		return nil, err
	}
	base := len(p.marks)
	found := make([]int, n) // by place: the number, -1 for members of others
	var all []*probe
	defer func() { p.end(all) }()
	for unit := 1; unit == 1 || unit < len(own); unit *= base {
		probes, err := p.send(ctx, own, func(i int) int { return p.marks[i/unit%base] }, n, rest)
		all = append(all, probes...)
		if err != nil {
			return nil, err
		}
		for _, pr := range probes {
			if digit := slices.Index(p.marks, pr.mark); digit < 0 || found[pr.place] < 0 {
				found[pr.place] = -1
			} else {
				found[pr.place] += digit * unit
			}
		}
	}
	order, seen := make([]uint32, n), make([]int, len(own))
	for place, number := range found {
		if number >= len(own) {
			return nil, fmt.Errorf("place %d of %d is none of the own members': %w", place, n, ErrNotSteered)
		}
		if number >= 0 {
			order[place] = own[number].inode
			seen[number]++
		}
	}
	for _, pr := range all {
		pr.inode = order[pr.place]
	}
	for _, times := range seen {
		if times != 1 {
			return nil, fmt.Errorf("own member at %d of %d places: %w", times, n, ErrNotSteered)
		}
	}
	return order, nil
}

// send marks the own members, and makes a connection to each of the n places of
// the group. The caller ends the probes, also after an error.
func (p *prober) send(ctx context.Context, own []*socket, mark func(i int) int, n int, prog program) (all []*probe, err error) {
	defer func() {
		for _, s := range own {
			err = errors.Join(err, p.setMark(s, 0))
		}
	}()
	for i, s := range own {
		if err := p.setMark(s, mark(i)); err != nil {
			return nil, fmt.Errorf("mark a listener: %w", err)
		}
	}
	prog.self, prog.except = p.self.Addr(), make(map[uint16]int, n)
	for place := range n {
		fd, client, err := p.socket(unix.SOCK_STREAM)
		if err != nil {
			return all, err
		}
		all = append(all, &probe{Probe: probes.Add(p.self, client), fd: fd, client: client, place: place})
		prog.except[client.Port()] = place
	}
	if err := attach(own[0].conn, &prog); err != nil {
		return all, err
	}
	for _, pr := range all {
		if err := p.connect(ctx, pr); err != nil {
			return all, err
		}
	}
	return all, nil
}

// socket returns a socket that has a port of the own address.
func (p *prober) socket(kind int) (fd int, local netip.AddrPort, err error) {
	if fd, err = unix.Socket(p.family(), kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, local, os.NewSyscallError("socket", err)
	}
	if err = os.NewSyscallError("bind", unix.Bind(fd, p.t.key.sockaddr(netip.AddrPortFrom(p.self.Addr(), 0)))); err == nil {
		local, err = localAddr(fd)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was sent
	}
	return fd, local, err
}

func (p *prober) family() int {
	if p.self.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// probeTime bounds a probe. On the loopback interface it takes 100 µs.
const probeTime = 2 * time.Second

// connect connects pr and finds out the mark of the listener. A connection that is
// gone is one that a member of others has closed: an Accept of this process keeps
// it to the end.
func (p *prober) connect(ctx context.Context, pr *probe) error {
	switch err := connectTimeout(pr.fd, p.t.key.sockaddr(p.self)); {
	case errors.Is(err, unix.ECONNRESET):
		return nil // so soon, on a busy machine
	case err != nil:
		return fmt.Errorf("connect to the own address %v: %w", p.self, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	for try := 0; ; try++ {
		child, err := p.t.dc.Lookup(uint8(p.family()), diag.Tuple{Local: p.self, Remote: pr.client})
		switch {
		case err == nil && (child.State == diag.StateFinWait2 || child.State == diag.StateTimeWait):
			return nil // the kernel keeps only the remains
		case err == nil && child.State != diag.StateSynRecv && !child.HasSockopts:
			return fmt.Errorf("options of a connection in sock_diag, which kernel 5.13 has: %w", errors.ErrUnsupported)
		case err == nil && child.State != diag.StateSynRecv:
			pr.mark = p.markOf(child)
			return nil
		case err != nil && !errors.Is(err, unix.ENOENT):
			return err
		case err != nil:
			if info, err := unix.GetsockoptTCPInfo(pr.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.State == diag.StateClose {
				return nil
			}
		}
		if try == 3 {
			// With TCP_DEFER_ACCEPT there is no child before there are data.
			_, _ = unix.Write(pr.fd, []byte{0}) // a reset shows in the next look
		}
		if err := sleep(ctx, min(time.Duration(try)*20*time.Microsecond, 5*time.Millisecond)); err != nil {
			return fmt.Errorf("find the own connection from %v: %w", pr.client, err)
		}
	}
}

// end resets the probes.
func (p *prober) end(all []*probe) {
	for _, pr := range all {
		pr.End(pr.inode)
		_ = unix.SetsockoptLinger(pr.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no FIN
		_ = unix.Close(pr.fd)
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
