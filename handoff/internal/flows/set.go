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
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// lookInterval is how often the current process looks whether the lanes of others are
// free, while others have some.
const lookInterval = 100 * time.Millisecond

// A Set is an address, and the lane that this process has of it.
type Set struct {
	key  Key
	g    group
	t    *table
	conn *net.UDPConn
	lane int
	n    int // lanes

	mu       sync.Mutex
	before   int            // the lane that was current before this process's
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
	t, err := newTable(header{Lanes: c.Lanes, Key: newKey(), IDs: c.IDs})
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
	if err == nil && !shared {
		err = s.Serve()
	}
	if err != nil {
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

// join takes a lane of those that a predecessor has passed on. It takes ownership of g
// and fd, the table.
func join(k Key, g group, fd int, c Choice) (*Set, error) {
	t, err := openTable(fd)
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	s := newSet(k, g, t)
	switch {
	case len(g) != t.Lanes:
		err = fmt.Errorf("%w: %d of %d lanes", failure.Transfer, len(g), t.Lanes)
	case t.IDs.Len != c.IDs.Len || !slices.Equal(t.IDs.Forms, c.IDs.Forms):
		err = fmt.Errorf("%w: the predecessor has IDs of the form %+v, and this process asks for %+v: keep the form, or use another address", failure.Mismatch, t.IDs, c.IDs)
	default:
		err = s.choose(true, g.flush)
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
// serves, and starts run. prepare is called with it.
func (s *Set) choose(another bool, prepare func(lane int)) error {
	current, err := s.t.current()
	if err != nil {
		return err
	}
	s.before = current
	for i := range s.n {
		lane := (current + i) % s.n
		if another && i == 0 {
			continue
		}
		ok, err := s.t.take(regionOf(lane))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		prepare(lane)
		if err := s.t.setKept(lane, nil); err != nil {
			return err
		}
		if s.conn, err = s.g.conn(lane); err != nil {
			return err
		}
		s.lane = lane
		go s.run() // ends with stop; Close waits for it
		return nil
	}
	return s.full()
}

func (s *Set) full() error {
	return fmt.Errorf("%w: processes that linger have all of the %d lanes of %v: wait until one has ended, set Config.MaxLingering to %d, or have the first process of the line open more lanes", failure.InProgress, s.n, s.key, s.n-2)
}

// discard closes a set that was not finished.
func (s *Set) discard() error {
	if s.lane >= 0 {
		return s.Close()
	}
	return errors.Join(s.t.close(), s.g.close())
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

// Serve makes the lane of this process the current one. It returns when the kernel has
// been seen to do it, or with an error, and then it is as it was.
func (s *Set) Serve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	defer s.Look()
	return s.t.turn(func() error {
		before, err := s.t.current()
		if err != nil {
			return err
		}
		if before != s.lane {
			s.before = before
		}
		if err = s.makeCurrent(s.lane); err == nil {
			if err = s.verify(&s.attached, s.lane); err == nil {
				return nil
			}
		}
		return errors.Join(err, s.makeCurrent(before))
	})
}

// Undo gives the address back to the process that had it before Serve, if no other
// process has taken it since.
func (s *Set) Undo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.t.turn(func() error {
		current, err := s.t.current()
		if err != nil || current != s.lane || s.before == s.lane {
			return err
		}
		return s.makeCurrent(s.before)
	})
}

// makeCurrent attaches the program for a current lane.
func (s *Set) makeCurrent(lane int) error {
	r, err := s.route(lane)
	if err == nil {
		err = s.g.attach(r)
	}
	if err == nil {
		err = s.t.setCurrent(lane)
	}
	if err != nil {
		return err
	}
	s.attached = *r
	return nil
}

// route is what the program has to do now.
func (s *Set) route(current int) (*route, error) {
	live, err := s.live()
	if err != nil {
		return nil, err
	}
	r := &route{ids: s.t.IDs, key: s.t.Key, lanes: s.n, live: live, current: current}
	for _, lane := range live {
		if lane == current {
			continue
		}
		clients, err := s.t.kept(lane)
		if err != nil {
			return nil, err
		}
		for _, c := range clients {
			r.kept = append(r.kept, kept{c, lane})
		}
	}
	return r, nil
}

// live returns the lanes that processes have.
func (s *Set) live() ([]int, error) {
	var live []int
	for lane := range s.n {
		taken := lane == s.lane
		if !taken {
			var err error
			if taken, err = s.t.taken(lane); err != nil {
				return nil, err
			}
		}
		if taken {
			live = append(live, lane)
		}
	}
	return live, nil
}

// verify notes whether probes could show what the program does.
func (s *Set) verify(r *route, lanes ...int) error {
	err := s.g.verify(r, lanes...)
	s.blind = ""
	if errors.Is(err, errBlind) {
		s.blind = err.Error()
		return nil
	}
	return err
}

// Look has this process look soon whether lanes of others are free.
func (s *Set) Look() {
	select {
	case s.look <- struct{}{}:
	default: // it will
	}
}

// run attaches the program again when other processes have ended: the current process
// answers for their flows.
func (s *Set) run() {
	defer close(s.ended)
	var again <-chan time.Time
	for {
		select {
		case <-s.stop:
			return
		case <-s.look:
		case <-again:
		}
		again = nil
		if s.refresh() {
			again = time.After(lookInterval)
		}
	}
}

// refresh reports whether this process is the current one and others have lanes.
func (s *Set) refresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	current, err := s.t.current()
	if err != nil || current != s.lane {
		return false
	}
	// Looking costs a system call a lane. The turn is for attaching alone.
	live, err := s.live()
	if err == nil && !slices.Equal(live, s.attached.live) {
		err = s.t.turn(func() error {
			if current, err := s.t.current(); err != nil || current != s.lane {
				return err
			}
			return s.makeCurrent(s.lane)
		})
	}
	return err != nil || len(live) > 1 // an error may be over next time
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
	var errs []error
	if err := s.conn.Close(); !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err) // the program may have closed it
	}
	return errors.Join(append(errs, s.t.close(), s.g.close())...)
}
