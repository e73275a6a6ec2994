package reuseport

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// noTime clears a deadline.
var noTime time.Time

// socket is what steering and leaving know of a member.
type socket struct {
	conn  syscall.Conn
	shut  func() error // closes the member for good
	count *atomic.Int64
	// answering reports whether what was read last may not be answered yet; with
	// call it holds readers until dismiss. nil where answers don't need the
	// socket.
	answering func(call bool) bool
	dismiss   func()
	// shared reports whether somebody else may have a duplicate of the
	// descriptor.
	shared func() bool

	inode uint32 // set before the socket is in crew.socks
}

// crew is the members that this process has in one group of the kernel, and
// their steering. The kernel's group can have further members in other
// processes.
type crew struct {
	udp bool

	// op holds a token for whoever changes the steering or leaves; those take
	// turns. It guards lease and prog.
	op chan struct{}
	// lease is held while the steering is Away: see lease.
	lease *lease
	// prog is the program that this process has attached last; without targets
	// there is none.
	prog program

	// moved gets a signal after each accept or read while leaving is above 0.
	moved   chan struct{}
	leaving atomic.Int32

	// fresh returns a socket that is bound to the group's address and has not
	// joined.
	fresh func(context.Context) (*os.File, error)

	mu    sync.Mutex
	socks []*socket // joined, in this order
	// order has the inodes of the group in the kernel's order, if this process
	// has seen every change of it; nil if not.
	order    []uint32
	steering Steering
	steerer  Steerer // nil means the programs of this package
}

func newCrew(udp bool) *crew {
	return &crew{udp: udp, op: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
}

// begin waits for the turn of an operation, end ends it.
func (c *crew) begin(ctx context.Context) error {
	select {
	case c.op <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *crew) end() { <-c.op }

// member makes a socket a [Member] of its own.
func (s *socket) member() *socket { return s }

// joined takes in s, which is in the kernel's group now.
func (c *crew) joined(s *socket) error {
	c.mu.Lock()
	c.socks = append(c.socks, s)
	c.order = extend(c.udp, c.order, s, len(c.socks))
	steerer := c.steerer
	c.mu.Unlock()
	if !c.udp {
		probes.know(s, c)
	}
	if steerer == nil {
		return nil
	}
	return steerer.Join(s.conn)
}

func (c *crew) steeredBy() Steerer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.steerer
}

// idle lets other processes have their turn after the last member was closed. An
// operation under way does that itself at its end.
func (c *crew) idle() {
	select {
	case c.op <- struct{}{}:
		c.release()
		c.end()
	default:
	}
}

// drop takes s out, and reports whether it was there.
func (c *crew) drop(s *socket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.socks, s)
	if i < 0 {
		return false
	}
	if c.steerer != nil {
		// Its methods don't call back, and it must not miss the moment.
		c.steerer.Left(s.conn)
		if len(c.socks) == 1 {
			_ = c.steerer.Close() // the group goes, and its program
			c.steerer = nil
		}
	}
	c.socks = slices.Delete(c.socks, i, i+1)
	probes.unknow(s)
	if at := slices.Index(c.order, s.inode); at >= 0 {
		c.order = after(c.order, []int{at})
	}
	return true
}

// signal wakes the leaving operation, if there is one, after an accept or read.
func (c *crew) signal() {
	if c.leaving.Load() > 0 {
		select {
		case c.moved <- struct{}{}:
		default:
		}
	}
}

func (c *crew) members() []*socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.socks)
}

// byInode returns the member that is that socket, or nil.
func (c *crew) byInode(inode uint32) *socket {
	for _, s := range c.members() {
		if s.inode == inode {
			return s
		}
	}
	return nil
}

func (c *crew) current() Steering {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.steering
}

func (c *crew) setCurrent(s Steering) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steering = s
}

// release ends the turn of this process, unless its steering needs it.
func (c *crew) release() {
	if c.current().kind != steerAway || len(c.members()) == 0 {
		c.lease.free()
		c.lease = nil
	}
}
