package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// A process learns which index of a group is which of its sockets by asking the
// kernel: a program sends one known source port to the index, a connection from
// that port is made, and sock_diag tells whose child the server's end of it is.
// All other traffic goes its normal way meanwhile.
//
// A child inherits the flags of its listener, so a listener is marked for the
// time by flags that mean nothing to TCP, and are in what sock_diag reports
// (since kernel 5.13). That works without accepting the connection, on
// listeners of other processes too, which are those without a mark. They see a
// connection that is reset at once.

// With three flags there are seven marks. Those below markKin tell members apart;
// markOwn is for the other members of this group, and markKin for those that
// other groups of this process have.
const (
	markKin = 6
	markOwn = 7
)

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

// getFlags returns the mark flags of fd, one bit each.
func getFlags(fd int) (flags int, err error) {
	for i, f := range markFlags {
		v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, f.opt)
		if err != nil {
			return 0, os.NewSyscallError("getsockopt("+f.name+")", err)
		}
		flags |= v & 1 << i
	}
	return flags, nil
}

// plainFlags returns the mark flags of an unmarked listener, which differ
// between the families.
func plainFlags(family uint8) (int, error) {
	fd, err := unix.Socket(int(family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return getFlags(fd)
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

// markOf returns the mark in what sock_diag says about a child.
func (p *prober) markOf(s diag.Socket) int {
	flags := 0
	for i, f := range markFlags {
		if s.Sockopts&f.bit != 0 {
			flags |= 1 << i
		}
	}
	return flags ^ p.plain
}

// unmarked returns an error if the user has set an option that marks use.
func (p *prober) unmarked(s *socket) error {
	return control(s.conn, func(fd int) error {
		flags, err := getFlags(fd)
		if err == nil && flags != p.plain {
			err = fmt.Errorf("a multicast option is in use on the listener: %w", errors.ErrUnsupported)
		}
		return err
	})
}

// prober makes connections to the group.
type prober struct {
	c    *crew
	site *site
	dc   *diag.Conn
	self netip.AddrPort

	plain int // flags of an unmarked listener
}

func newProber(c *crew, s *site, dc *diag.Conn) (*prober, error) {
	self, err := s.self()
	if err != nil {
		return nil, err
	}
	plain, err := plainFlags(s.query.Family)
	if err != nil {
		return nil, err
	}
	return &prober{c: c, site: s, dc: dc, self: self, plain: plain}, nil
}

// locate finds the own sockets among the n members. The result has, by index,
// the inode of an own socket or 0. rest says what the program does for all other
// traffic meanwhile.
func (p *prober) locate(ctx context.Context, own []*socket, n int, rest program) (order []uint32, err error) {
	found := make([]*socket, n)
	for todo := own; len(todo) > 0; {
		batch := todo[:min(markKin-1, len(todo))]
		todo = todo[len(batch):]
		mark := func(s *socket) int {
			if i := slices.Index(batch, s); i >= 0 {
				return i + 1
			}
			return markOwn
		}
		var open []int
		for i, s := range found {
			if s == nil {
				open = append(open, i)
			}
		}
		prog := rest
		shots, err := p.shoot(ctx, own, mark, &prog, open)
		if err != nil {
			return nil, err
		}
		seen := make(map[*socket]int)
		for _, s := range shots {
			if slices.Contains(batch, s.sock) {
				found[s.index] = s.sock
				seen[s.sock]++
			}
		}
		for _, s := range batch {
			if seen[s] != 1 {
				return nil, fmt.Errorf("own member at %d of %d indexes: %w", seen[s], n, ErrNotSteered)
			}
		}
	}
	order = make([]uint32, n)
	for i, s := range found {
		if s != nil {
			order[i] = s.inode
		}
	}
	return order, nil
}

// verify makes count connections that go the way of all traffic, and reports
// whether none of them came to a member of away.
func (p *prober) verify(ctx context.Context, own, away []*socket, prog program, count int) error {
	others := slices.DeleteFunc(slices.Clone(own), func(s *socket) bool { return slices.Contains(away, s) })
	mark := func(s *socket) int {
		switch i := slices.Index(others, s); {
		case i < 0:
			return 1
		case 2+i < markKin: // for the report, should one of them leave as well
			return 2 + i
		}
		return markOwn
	}
	aims := slices.Repeat([]int{anyIndex}, count)
	shots, err := p.shoot(ctx, own, mark, &prog, aims)
	if err != nil {
		return err
	}
	for _, s := range shots {
		if slices.Contains(away, s.sock) {
			return fmt.Errorf("a connection came to a member that leaves: %w", ErrNotSteered)
		}
	}
	return nil
}

// shoot marks the own members, attaches prog with a way for each aim, and makes
// a connection to each. sock of the result is nil for members of others.
func (p *prober) shoot(ctx context.Context, own []*socket, mark func(*socket) int, prog *program, aims []int) (_ []*shot, err error) {
	for _, s := range own {
		if err := p.unmarked(s); err != nil {
			return nil, fmt.Errorf("mark a listener: %w", err)
		}
	}
	kin, err := p.kin(own)
	if err != nil {
		return nil, fmt.Errorf("mark a listener: %w", err)
	}
	defer func() {
		for _, s := range own {
			err = errors.Join(err, p.setMark(s, 0))
		}
		for _, s := range kin {
			_ = p.setMark(s, 0) // it may have closed
		}
	}()
	for _, s := range kin {
		_ = p.setMark(s, markKin) // likewise
	}
	for _, s := range own {
		if err := p.setMark(s, mark(s)); err != nil {
			return nil, err
		}
	}
	shots, err := p.aim(prog, aims)
	if err != nil {
		return nil, err
	}
	defer p.end(shots)
	if err := attach(own[0].conn, prog); err != nil {
		return nil, err
	}
	for _, s := range shots {
		if err := p.fire(ctx, s); err != nil {
			s.in = slices.Concat(own, kin) // nobody knows
			return nil, err
		}
		if s.sock != nil || s.mark == 0 {
			continue
		}
		for _, o := range own {
			if mark(o) == s.mark {
				s.in = append(s.in, o)
			}
		}
		if len(s.in) > 0 {
			s.sock = s.in[0]
		}
		if s.mark == markKin {
			s.in = slices.Clone(kin) // each is cut down by itself
		}
	}
	return shots, nil
}

// kin returns the listeners that this process has in the group beside own, as
// members of other groups.
func (p *prober) kin(own []*socket) (kin []*socket, err error) {
	others := probes.ofOthers(p.c)
	if len(others) == 0 {
		return nil, nil
	}
	group, err := p.site.list(p.dc)
	if err != nil {
		return nil, err
	}
	for _, s := range others {
		same := func(o *socket) bool { return o.inode == s.inode } // a duplicate
		if slices.ContainsFunc(own, same) || !slices.ContainsFunc(group, func(m diag.Socket) bool { return m.Inode == s.inode }) {
			continue
		}
		switch err := p.unmarked(s); {
		case err == nil:
			kin = append(kin, s)
		case errors.Is(err, errors.ErrUnsupported):
			return nil, err
		} // else it has closed
	}
	return kin, nil
}
