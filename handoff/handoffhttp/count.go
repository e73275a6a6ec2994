package handoffhttp

// enlist counts c among the open connections, and reports whether it can. If
// parked, it has finish wait for a goroutine as well.
func (s *Server) enlist(c *conn, parked bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.listed {
		return true
	}
	if s.over {
		return false
	}
	if parked {
		s.wg.Add(1)
	}
	c.listed = true
	c.prev, c.next = s.conns.prev, &s.conns
	c.prev.next, c.next.prev = c, c
	s.open++
	return true
}

// forget ends the count of c.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.self == nil {
		delete(s.foreign, c.outer)
	}
	if !c.listed {
		return
	}
	c.listed = false
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	s.open--
	s.doneLocked()
}

// loop counts goroutines that may bring connections.
func (s *Server) loop(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loops += n
	s.doneLocked()
}

func (s *Server) doneLocked() {
	if s.open+s.loops == 0 && s.none != nil {
		close(s.none)
		s.none = nil
	}
}

// count returns the number of open connections.
func (s *Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// all returns the open connections.
func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := make([]*conn, 0, s.open)
	for c := s.conns.next; c != &s.conns; c = c.next {
		cs = append(cs, c)
	}
	return cs
}

// empty returns a channel that is closed when no connection is open and none can
// come.
func (s *Server) empty() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	if s.open+s.loops == 0 {
		close(done)
		return done
	}
	if s.none == nil {
		s.none = done
	}
	return s.none
}
