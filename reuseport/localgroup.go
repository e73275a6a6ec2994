package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket is what steering and leaving know of a member.
type socket struct {
	group  *localGroup
	owner  Member       // nil for a socket of [Move]
	conn   syscall.Conn // for calls of this package, which keep no duplicate
	inode  uint32
	close  func() error
	count  atomic.Int64 // connections accepted, datagrams read
	shared atomic.Bool  // the user may have made a duplicate
	reads  *readBarrier // nil where answers don't need the socket
}

func (s *socket) member() *socket { return s }

// joined has the members of all groups of this process, as *socket.
var joined sync.Map

// localGroup is the members that this process has in one group of the kernel, and
// their steering. The kernel's group can have members of other processes.
type localGroup struct {
	network string
	cfg     Config
	udp     bool

	// token is taken by the operation that changes the steering or closes
	// members. It guards lock and prog.
	token chan struct{}
	lock  *groupLock // held while the steering is Away
	prog  program    // that this process has attached last

	// moved gets a signal after each accept or read while leaving is above 0.
	moved   chan struct{}
	leaving atomic.Int32

	mu       sync.Mutex
	address  string   // for the next member
	addr     net.Addr // nil before the first member
	socks    []*socket
	closed   bool
	steering Steering
	merged   *merged
}

func newLocalGroup(network, address string, cfg *Config, networks ...string) (*localGroup, error) {
	c, err := cfg.orDefault()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(networks, network) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	g := emptyGroup(networks[0] == "udp")
	g.network, g.address, g.cfg = network, address, c
	return g, nil
}

func emptyGroup(udp bool) *localGroup {
	return &localGroup{udp: udp, token: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
}

// fill makes the members that a group begins with.
func (g *localGroup) fill(add func() error) error {
	for range g.cfg.Members {
		if err := add(); err != nil {
			return errors.Join(err, g.close())
		}
	}
	return nil
}

// target returns the address for the next member.
func (g *localGroup) target() (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return "", ErrClosed
	}
	return g.address, nil
}

// explain adds what an error of bind(2) or listen(2) means here.
func explain(err error) error {
	if isAddrInUse(err) {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return err
}

// join makes s, which is in the kernel's group, a member, or closes it.
func (g *localGroup) join(s *socket, addr net.Addr) (err error) {
	defer func() {
		if err != nil {
			g.drop(s)
			_ = s.close() // the other error says more
		}
	}()
	if s.inode, err = inodeOf(s.conn); err != nil {
		return err
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	if g.addr == nil {
		g.addr, g.address = addr, addr.String()
	}
	g.socks = append(g.socks, s)
	joined.Store(s, nil)
	if g.merged != nil {
		g.merged.serve(s.owner.(*Listener))
	}
	g.mu.Unlock()
	return nil
}

// drop takes s out, before it is closed, and reports whether it was there.
func (g *localGroup) drop(s *socket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.socks, s)
	if i < 0 {
		return false
	}
	g.socks = slices.Delete(g.socks, i, i+1)
	joined.Delete(s)
	return true
}

// closeMember closes s at once. A second call does nothing.
func (g *localGroup) closeMember(s *socket) error {
	if !g.drop(s) {
		return nil
	}
	select {
	case g.token <- struct{}{}:
		g.unlock()
		<-g.token
	default: // the operation under way unlocks at its end
	}
	return s.close()
}

// close closes all members at once.
func (g *localGroup) close() error {
	g.shut()
	var errs []error
	for _, s := range g.sockets() {
		errs = append(errs, g.closeMember(s))
	}
	return errors.Join(errs...)
}

// shut ends Add, and reports whether it was ended before.
func (g *localGroup) shut() (already bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	already, g.closed = g.closed, true
	return already
}

// sockets returns the members, in the order in which they have joined.
func (g *localGroup) sockets() []*socket {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.socks)
}

// present returns those of socks that are members still.
func (g *localGroup) present(socks []*socket) []*socket {
	own := g.sockets()
	return slices.DeleteFunc(slices.Clone(socks), func(s *socket) bool { return !slices.Contains(own, s) })
}

// owners returns the members as what their users know.
func owners[M Member](g *localGroup) []M {
	var all []M
	for _, s := range g.sockets() {
		all = append(all, s.owner.(M))
	}
	return all
}

func (g *localGroup) bound() net.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addr
}

// removeMembers is remove of what users know.
func removeMembers[M Member](ctx context.Context, g *localGroup, members []M) (Report, error) {
	var socks []*socket
	own := g.sockets()
	for _, m := range members {
		s := m.member()
		if s.group != g {
			return Report{}, ErrNotMember
		}
		if slices.Contains(own, s) && !slices.Contains(socks, s) {
			socks = append(socks, s)
		}
	}
	switch {
	case len(members) == 0:
		return Report{}, nil
	case len(socks) == 0:
		return Report{}, ErrClosed
	}
	return g.remove(ctx, socks)
}

// drain is remove of all members.
func (g *localGroup) drain(ctx context.Context) (Report, error) {
	closed, socks := g.shut(), g.sockets()
	switch {
	case len(socks) > 0:
		return g.remove(ctx, socks)
	case closed:
		return Report{}, ErrClosed
	}
	return Report{}, nil
}

// signal wakes the operation that waits for members to get quiet, if there is one,
// after an accept or read.
func (g *localGroup) signal() {
	if g.leaving.Load() > 0 {
		select {
		case g.moved <- struct{}{}:
		default:
		}
	}
}

func (g *localGroup) current() Steering {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.steering
}

func (g *localGroup) setCurrent(s Steering) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steering = s
}

// unlock frees the group lock, unless the steering needs it. The caller has the
// token.
func (g *localGroup) unlock() {
	if g.current().kind != steerAway || len(g.sockets()) == 0 {
		g.lock.free()
		g.lock = nil
	}
}
