package handoff

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// A crowd is the sockets that this process serves on one address, as members of
// a reuseport group. It has duplicates of them: they are in the kernel's group
// with or without it. Guests are another process's members that it has lent us.
type crowd struct {
	network, address string

	tcp       *reuseport.Group // one of the two
	udp       *reuseport.PacketGroup
	own       []*reuseport.Listener
	ownUDP    []*reuseport.PacketConn
	guests    []*reuseport.Listener
	guestsUDP []*reuseport.PacketConn
}

// newCrowd makes a crowd of sockets, which are bound to one address.
func newCrowd(ctx context.Context, group []*sockets.Socket, cfg *config) (*crowd, error) {
	e := &group[0].Entry
	c := &crowd{network: e.Network, address: e.Bound}
	if e.Kind == wire.KindPacket {
		// A group comes with a member; this one is in nobody's way.
		first, err := reuseport.ListenPacket(ctx, "udp", netip.AddrPortFrom(loopback(e.Network), 0).String(), nil)
		if err != nil {
			return nil, err
		}
		c.udp = first.Group()
		if err := first.Close(); err != nil {
			return nil, err
		}
		for _, s := range group {
			m, err := c.udp.Adopt(s.Handle())
			if err != nil {
				return nil, errors.Join(err, c.close())
			}
			c.ownUDP = append(c.ownUDP, m)
		}
		return c, nil
	}
	// One that does not listen is no member for the kernel. It is bound as they are,
	// which may take what the user's Control sets (IP_FREEBIND, for one).
	first, err := reuseport.Bind(ctx, e.Network, e.Bound, &reuseport.Config{Control: cfg.listenConfig.Control})
	if err != nil {
		return nil, err
	}
	c.tcp = first.Group()
	for _, s := range group {
		m, err := c.tcp.Adopt(s.Handle())
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.own = append(c.own, m)
	}
	return c, first.Close()
}

func loopback(network string) netip.Addr {
	if network == "udp6" {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// adopt makes another process's member one of ours. It borrows conn. The result
// is a *reuseport.Listener or a *reuseport.PacketConn.
func (c *crowd) adopt(conn syscall.Conn) (reuseport.Member, error) {
	if c.udp != nil {
		m, err := c.udp.Adopt(conn)
		if err != nil {
			return nil, err
		}
		c.guestsUDP = append(c.guestsUDP, m)
		return m, nil
	}
	m, err := c.tcp.Adopt(conn)
	if err != nil {
		return nil, err
	}
	c.guests = append(c.guests, m)
	return m, nil
}

// quiesce turns the traffic away from our own members and waits until nothing
// is left in them.
func (c *crowd) quiesce(ctx context.Context) (reuseport.Report, error) {
	if c.udp != nil {
		return c.udp.Quiesce(ctx, c.ownUDP...)
	}
	return c.tcp.Quiesce(ctx, c.own...)
}

// shun turns the traffic away from the guests; with no guest, from nobody.
func (c *crowd) shun(ctx context.Context) error {
	steering := reuseport.Hash()
	if c.udp != nil {
		if len(c.guestsUDP) > 0 {
			steering = reuseport.Away(members(c.guestsUDP)...)
		}
		return c.udp.Steer(ctx, steering)
	}
	if len(c.guests) > 0 {
		steering = reuseport.Away(members(c.guests)...)
	}
	return c.tcp.Steer(ctx, steering)
}

// exclusive notes that the guests are ours alone.
func (c *crowd) exclusive() {
	for _, m := range c.guests {
		m.Exclusive()
	}
	for _, m := range c.guestsUDP {
		m.Exclusive()
	}
}

// remove drains the guests and closes our duplicates of them.
func (c *crowd) remove(ctx context.Context) (reuseport.Report, error) {
	if c.udp != nil {
		return c.udp.Remove(ctx, c.guestsUDP...)
	}
	return c.tcp.Remove(ctx, c.guests...)
}

// close closes our duplicates.
func (c *crowd) close() error {
	if c.udp != nil {
		return c.udp.Close()
	}
	return c.tcp.Close()
}

func members[M reuseport.Member](ms []M) []reuseport.Member {
	all := make([]reuseport.Member, len(ms))
	for i, m := range ms {
		all[i] = m
	}
	return all
}

// explainForeign says what to do about a socket that can't be joined.
func explainForeign(err error) error {
	if !errors.Is(err, reuseport.ErrForeign) {
		return err
	}
	return fmt.Errorf("%w: run both versions as one user, and have the running one in mode Drain from its start, or upgrade it once in mode Takeover after its sockets were made with reuseport.Control: %w", ErrUnsupported, err)
}

// crowds groups sockets by the address that they are bound to.
func crowds(group []*sockets.Socket) [][]*sockets.Socket {
	var all [][]*sockets.Socket
	for _, s := range group {
		i := slices.IndexFunc(all, func(c []*sockets.Socket) bool {
			e := &c[0].Entry
			return e.Kind == s.Entry.Kind && e.Bound == s.Entry.Bound && e.Domain == s.Entry.Domain
		})
		if i < 0 {
			all = append(all, []*sockets.Socket{s})
		} else {
			all[i] = append(all[i], s)
		}
	}
	return all
}
