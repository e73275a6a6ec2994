package flows

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// Keep has the flow of a client, which has no ID, stay with this process until Forget.
func (s *Set) Keep(c netip.AddrPort) error {
	c = netip.AddrPortFrom(c.Addr().Unmap().WithZone(""), c.Port())
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.clients[c]; ok || s.closed {
		return nil
	}
	if s.most == 0 {
		s.most = s.t.capacity()
	}
	n := len(s.clients) + 1
	for lane := range s.n {
		if taken, err := s.t.taken(lane); err == nil && taken && lane != s.lane {
			others, err := s.t.kept(lane)
			if err != nil {
				return err
			}
			n += len(others)
		}
	}
	if n > s.most {
		// While this process is the current one, no program has them. That of its successor
		// would not fit.
		advice := ""
		if s.most < MaxKept {
			advice = fmt.Sprintf(", and up to %d if net.core.optmem_max is 131072", MaxKept)
		}
		return fmt.Errorf("%w: %d flows without an ID on %v: the kernel's program takes %d%s", failure.Unsupported, n, s.key, s.most, advice)
	}
	s.clients[c] = nil
	if err := s.keep(); err != nil {
		delete(s.clients, c)
		_ = s.t.setKept(s.lane, slices.Collect(maps.Keys(s.clients))) // as it was: that of other processes is made of it
		return err
	}
	return nil
}

// Forget ends what Keep has begun.
func (s *Set) Forget(c netip.AddrPort) error {
	c = netip.AddrPortFrom(c.Addr().Unmap().WithZone(""), c.Port())
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.clients[c]; !ok || s.closed {
		return nil
	}
	delete(s.clients, c)
	return s.keep()
}

// keep writes the clients into the table, and into the program if another process is the
// current one.
func (s *Set) keep() error {
	if err := s.t.setKept(s.lane, slices.Collect(maps.Keys(s.clients))); err != nil {
		return err
	}
	return s.t.inTurn(func() error {
		now, err := s.t.state()
		if err != nil || now.lane == s.lane {
			return err
		}
		return s.attach()
	})
}
