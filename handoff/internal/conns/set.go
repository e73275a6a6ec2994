package conns

import (
	"maps"
	"net"
	"slices"
	"sync"
)

// The reasons for which a Set counts a connection as cut.
const (
	cutTracked = "tracked"  // open at the linger limit
	cutInDoubt = "in doubt" // the successor died, or fell silent, with it
)

// A Set has the open connections of a process. All methods may be called from any
// goroutine.
type Set struct {
	mu      sync.Mutex
	tracked entry // the head of a ring
	open    int   // the length of the ring
	held    map[*Hold]struct{}
	none    chan struct{} // closed while nothing is tracked or held
	moved   uint64
	cut     uint64
	cutBy   map[string]uint64
}

// Counts are what a Set has counted.
type Counts struct {
	Open  uint64            // tracked or held now
	Moved uint64            // passed to the successor
	Cut   uint64            // closed by force
	CutBy map[string]uint64 // by reason; nil if none was
}

// NewSet returns an empty Set.
func NewSet() *Set {
	s := &Set{held: make(map[*Hold]struct{}), cutBy: make(map[string]uint64), none: make(chan struct{})}
	s.tracked.prev, s.tracked.next = &s.tracked, &s.tracked
	close(s.none)
	return s
}

// busyLocked is called before something is tracked or held.
func (s *Set) busyLocked() {
	if s.open+len(s.held) == 0 {
		s.none = make(chan struct{})
	}
}

// doneLocked is called after something was removed.
func (s *Set) doneLocked() {
	if s.open+len(s.held) == 0 {
		close(s.none)
	}
}

// Idle returns a channel that is closed when nothing is tracked or held.
func (s *Set) Idle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.none
}

// Open returns how many connections are tracked or held.
func (s *Set) Open() uint64 { return s.Counts().Open }

// Counts returns what has been counted.
func (s *Set) Counts() Counts {
	s.mu.Lock()
	c := Counts{Open: uint64(s.open), Moved: s.moved, Cut: s.cut}
	if len(s.cutBy) > 0 {
		c.CutBy = maps.Clone(s.cutBy)
	}
	held := slices.Collect(maps.Keys(s.held))
	s.mu.Unlock()
	for _, h := range held {
		c.Open += uint64(h.open())
	}
	return c
}

// Moved counts a connection that the successor has taken.
func (s *Set) Moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved++
}

// InDoubt counts a connection that no process can serve: the successor may have used
// it, and is gone.
func (s *Set) InDoubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut++
	s.cutBy[cutInDoubt]++
}

// Cut closes all tracked connections and returns how many there were.
func (s *Set) Cut() int {
	s.mu.Lock()
	var all []net.Conn
	for e := s.tracked.next; e != &s.tracked; e = e.next {
		all = append(all, e.self)
	}
	if n := uint64(len(all)); n > 0 {
		s.cut += n
		s.cutBy[cutTracked] += n
	}
	s.mu.Unlock()
	var others sync.WaitGroup
	for _, c := range all {
		if o, ok := c.(*otherConn); ok {
			others.Go(func() { _ = o.Close() }) // TLS may wait for its peer
			continue
		}
		_ = c.Close() // by force
	}
	others.Wait()
	return len(all)
}

// A Hold counts the connections of a server that closes them itself.
type Hold struct {
	set  *Set
	open func() int
}

// Hold counts the connections that open returns, until Release. open is called from
// any goroutine and must not block.
func (s *Set) Hold(open func() int) *Hold {
	h := &Hold{set: s, open: open}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busyLocked()
	s.held[h] = struct{}{}
	return h
}

// Release ends the hold. cut has the number of connections that the server closed by
// force, by reason. Only the first call counts.
func (h *Hold) Release(cut map[string]uint64) {
	s := h.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.held[h]; !ok {
		return
	}
	for why, n := range cut {
		s.cut += n
		s.cutBy[why] += n
	}
	delete(s.held, h)
	s.doneLocked()
}
