package flows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// A Set is an address, and the lane that this process has of it.
type Set struct {
	key  Key
	g    group
	t    *table
	conn *net.UDPConn
	lane int
	n    int // lanes

	meet     *net.UnixListener // where a process that starts anew asks for the lanes; nil: nowhere
	answered chan struct{}     // closed when answer has returned; nil without meet

	mu       sync.Mutex
	before   int            // the lane that was current before this process's
	limit    uint32         // the last turn after which Serve may take the address
	offers   bool           // this process has left new flows to others
	alone    string         // why meet is nil
	attached route          // the last program of this process
	blind    string         // why its effect was not verified
	clients  map[client]any // kept
	most     int            // flows without an ID that all processes can keep; zero means that it is not known yet
	closed   bool

	look  chan struct{} // capacity 1: whether lanes of others are free
	stop  chan struct{} // closed by Close
	ended chan struct{} // closed when run has returned
}

type client = netip.AddrPort

// Choice is what the first process of an address decides for those that follow.
type Choice struct {
	Lanes int // zero means DefaultLanes
	IDs   IDs
}

func (c *Choice) check() error {
	if c.Lanes == 0 {
		c.Lanes = DefaultLanes
	}
	if c.Lanes < MinLanes || c.Lanes > MaxLanes {
		return fmt.Errorf("%d lanes: %d to %d are possible", c.Lanes, MinLanes, MaxLanes)
	}
	return c.IDs.check()
}

// first binds the lanes of k. Lane 0 is old, if that is not nil, which another process
// reads as well if shared is set.
func first(ctx context.Context, lc net.ListenConfig, k Key, c Choice, old syscall.Conn, shared bool) (s *Set, err error) {
	g, err := bind(ctx, lc, k.Network, k.Address, c.Lanes, old)
	if err != nil {
		return nil, err
	}
	t, err := newTable(header{Lanes: c.Lanes, Key: newKey(), IDs: c.IDs, Shared: shared})
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	s = newSet(k, g, t)
	all := route{ids: c.IDs, key: t.Key, lanes: c.Lanes}
	for l := range c.Lanes {
		all.live = append(all.live, l)
	}
	if err = g.attach(&all); err == nil {
		err = s.verify(&all, all.live...)
	}
	if err == nil {
		err = s.choose(shared, func(int) {})
	}
	if err == nil {
		s.receive(newRendezvous(k, s.conn.LocalAddr()))
		if !shared {
			err = s.Serve()
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

// join takes a lane of those in a, which it takes ownership of: one that a predecessor has
// passed on; or that of the process that served, which has ended, if anew is set.
func join(k Key, a *arrival, c Choice, anew bool) (*Set, error) {
	t, err := openTable(a.table)
	if err != nil {
		a.table = -1 // closed
		return nil, errors.Join(err, a.close())
	}
	s := newSet(k, a.lanes, t)
	s.receive(a.listener())
	switch {
	case len(s.g) != t.Lanes:
		err = fmt.Errorf("%w: %d of %d lanes", failure.Transfer, len(s.g), t.Lanes)
	case t.IDs.Len != c.IDs.Len || !slices.Equal(t.IDs.Forms, c.IDs.Forms):
		err = fmt.Errorf("%w: the predecessor has IDs of the form %+v, and this process asks for %+v: keep the form, or use another address", failure.Mismatch, t.IDs, c.IDs)
	case anew:
		if err = s.inherit(); err == nil {
			err = s.Serve()
		}
	default:
		err = s.choose(true, s.g.flush)
	}
	if err != nil {
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

func newSet(k Key, g group, t *table) *Set {
	return &Set{
		key: k, g: g, t: t, lane: -1, n: t.Lanes, clients: make(map[client]any),
		look: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
}

// choose takes a lane that no process has, other than the current one if another process
// serves. prepare is called with it.
func (s *Set) choose(another bool, prepare func(lane int)) error {
	now, err := s.t.state()
	if err != nil {
		return err
	}
	s.before, s.limit = now.lane, now.turn
	for i := range s.n {
		lane := (now.lane + i) % s.n
		if another && i == 0 {
			continue
		}
		ok, err := s.t.take(regionOf(lane))
		if err != nil {
			return err
		}
		if ok {
			prepare(lane)
			return s.begin(lane)
		}
	}
	return s.full()
}

// inherit takes the current lane, whose process has ended. What waits there may be new
// flows.
func (s *Set) inherit() error {
	now, err := s.t.state()
	if err != nil {
		return err
	}
	s.before, s.limit = now.lane, now.turn
	ok, err := s.t.take(regionOf(now.lane))
	switch {
	case err != nil:
		return err
	case !ok: // another process has been faster
		return syscall.EADDRINUSE
	}
	return s.begin(now.lane)
}

// begin has this process read a lane that it has taken, and starts run.
func (s *Set) begin(lane int) (err error) {
	if err = s.t.setKept(lane, nil); err != nil {
		return err
	}
	if s.conn, err = s.g.conn(lane); err != nil {
		return err
	}
	s.lane = lane
	go s.run() // ends with stop; Close waits for it
	return nil
}

func (s *Set) full() error {
	return fmt.Errorf("%w: processes that linger have all of the %d lanes of %v: wait until one has ended, set Config.MaxLingering to %d, or have the first process of the line open more lanes", failure.InProgress, s.n, s.key, s.n-2)
}

// discard closes a set that was not finished.
func (s *Set) discard() error {
	if s.lane >= 0 {
		return s.Close()
	}
	return errors.Join(s.dismiss(), s.t.close(), s.g.close())
}

// Conn returns the lane of this process. It stays the Set's.
func (s *Set) Conn() *net.UDPConn { return s.conn }

// Mark makes id, which is random, the ID of a flow of this process.
func (s *Set) Mark(id []byte) error {
	if len(id) != s.t.IDs.Len || len(id) == 0 {
		return fmt.Errorf("%w: %d bytes, want %d", errIDLen, len(id), s.t.IDs.Len)
	}
	s.t.Key.mark(id, s.lane, s.n)
	return nil
}

// Close gives the lane back, and closes what this process has of the address.
func (s *Set) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.ended
	errs := []error{s.dismiss()}
	if err := s.conn.Close(); !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err) // the program may have closed it
	}
	return errors.Join(append(errs, s.t.close(), s.g.close())...)
}
