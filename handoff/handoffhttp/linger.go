package handoffhttp

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// The reasons for which connections are cut, in [Report.Cut] and in
// handoff.Report's CutBy.
const (
	CutIdle     = "idle"     // idle, closed at the linger limit
	CutRequest  = "request"  // a request was being sent or served
	CutStream   = "http2"    // HTTP/2, with open streams or without
	CutHijacked = "hijacked" // taken by a handler, a WebSocket for instance
	CutInDoubt  = "in doubt" // the successor died, and may have used it
)

// A Report counts what happened to the open connections of a linger.
type Report struct {
	Open   int               `json:"open"`          // when it began
	Moved  int               `json:"moved"`         // to the successor
	Stayed int               `json:"stayed"`        // the successor did not take them
	Why    string            `json:"why,omitempty"` // the reason for the first of them
	Cut    map[string]uint64 `json:"cut,omitempty"` // closed by force, by reason
	Took   time.Duration     `json:"took"`

	// Drains says how listeners have left their SO_REUSEPORT groups.
	Drains []reuseport.Report `json:"drains,omitempty"`
}

// Linger ends the service once the Upgrader is done, without losing a request, and
// returns when no connection is left. Connections that can move to the successor move
// as soon as they are idle. On the others the next response carries "Connection:
// close", and HTTP/2 connections get GOAWAY; none is closed before the linger limit. At
// the limit Linger closes the idle ones, longest idle first, spread over
// [Config.Spread], and cuts the rest. If ctx ends, it cuts all at once.
//
// Linger first waits until the Upgrader is done. Without an Upgrader, Linger calls
// [Server.Shutdown], with its limits. A second call waits for the first and returns the
// same report.
//
// When the linger begins, Linger starts the functions of the server's RegisterOnShutdown.
// At its end it closes the service as [http.Server.Close] does.
func (s *Server) Linger(ctx context.Context) *Report {
	s.linger.Do(func() {
		ctx, stop := s.untilClose(ctx)
		defer stop()
		s.report = s.doLinger(ctx)
	})
	return s.report
}

func (s *Server) doLinger(ctx context.Context) *Report {
	if s.up == nil {
		s.delay(ctx)
	} else {
		select {
		case <-s.up.Done():
		case <-ctx.Done():
		}
	}
	began := time.Now()
	r := &Report{Open: s.count(), Cut: make(map[string]uint64)}
	limit, spread, stop := s.limits(ctx)
	defer stop()
	s.begin()
	select {
	case <-s.empty():
	case <-ctx.Done():
		s.expire()
		s.cut(r)
	case <-limit:
		if s.up == nil {
			s.closeIdle(ctx, r, spread) // before a queue is given up that waits for their places
			s.expire()
			s.serveOut(ctx, r)
		} else {
			s.expire()
			s.closeIdle(ctx, r, spread)
		}
		s.cut(r)
	}
	s.finish(r)
	s.mu.Lock()
	r.Moved, r.Stayed, r.Why, r.Drains = s.moved, s.stayed, s.why, s.drains
	doubted := s.doubted
	if s.late > 0 {
		r.Cut[CutIdle] += s.late
	}
	s.mu.Unlock()
	r.Took = time.Since(began)
	s.hold(r.Cut)
	if doubted > 0 {
		r.Cut[CutInDoubt] = doubted // the Upgrader has counted them itself
	}
	s.log.Info("linger ended", "took", r.Took, "open", r.Open, "moved", r.Moved, "stayed", r.Stayed, "why", r.Why, "cut", r.Cut)
	return r
}

// limits returns what is closed, or receives, at the linger limit, and over which time
// idle connections are then closed. A deadline of ctx bounds both without an Upgrader:
// at the deadline itself connections would be cut.
func (s *Server) limits(ctx context.Context) (limit <-chan struct{}, spread time.Duration, stop func()) {
	spread = max(0, s.cfg.spread)
	if s.up != nil {
		return s.up.LingerExpired(), spread, func() {}
	}
	left := s.cfg.lingerTimeout
	if deadline, ok := ctx.Deadline(); ok {
		until := time.Until(deadline)
		spread = min(spread, until/10)
		if last := until - until/5; left < 0 || last < left {
			left = last
		}
	}
	if left < 0 {
		return nil, spread, func() {}
	}
	expired := make(chan struct{})
	t := time.AfterFunc(left, func() { close(expired) })
	return expired, spread, func() { t.Stop() }
}

// serveOut serves requests beyond the linger limit, until ctx ends.
func (s *Server) serveOut(ctx context.Context, r *Report) {
	s.cutHijacked(r)
	tick := time.NewTicker(http2Grace)
	defer tick.Stop()
	none := s.empty()
	for {
		select {
		case <-none:
			return
		case <-ctx.Done():
			return
		case <-tick.C: // a stream has ended, or the queue had one more
			s.closeIdle(ctx, r, 0)
		}
	}
}

// begin has connections move, or end with their next response.
func (s *Server) begin() {
	s.mu.Lock()
	for _, l := range s.listeners {
		l.taken.Store(l.name != "" && s.up.Takes(l.name))
	}
	s.mu.Unlock()
	s.lingers.Store(true)
	close(s.lingering)
	s.sayClose()
	s.leaveListeners(s.limit)
	// Shutdown of a server that serves nothing starts the functions of
	// RegisterOnShutdown, and has nothing to wait for.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.mu.Lock()
	s.begun = true
	s.mu.Unlock()
	_ = s.user.Shutdown(ctx) // it has no listener
	for _, c := range s.all() {
		c.mu.Lock()
		ph := c.phase
		c.mu.Unlock()
		if ph == phaseHijacked {
			s.goodbye(c)
			continue
		}
		c.callBack()
	}
}

// goodbye has the user's protocol end a connection.
func (s *Server) goodbye(c *conn) {
	if s.cfg.goodbye == nil {
		return
	}
	c.mu.Lock()
	said, nc := c.said, c.outer
	c.said = true
	c.mu.Unlock()
	if said || !s.join() {
		return
	}
	go func() { // ends with the linger, by the contract of Goodbye
		defer s.wg.Done()
		s.cfg.goodbye(s.limit, nc)
	}()
}

// maxSending bounds the connections that are on their way to the successor at
// once: each takes a second descriptor. It is a few batches of SCM_RIGHTS.
const maxSending = 1024

// depart passes a connection that was claimed on to the successor. One that is
// not taken goes back to net/http, to end there.
func (s *Server) depart(c *conn) {
	defer s.wg.Done() // claimLocked has joined
	st := c.state()
	s.sending <- struct{}{}
	err := c.send(s.limit, st.encode())
	<-s.sending
	c.mu.Lock()
	tries := c.tries + 1
	c.mu.Unlock()
	if errors.Is(err, handoff.ErrNoSuccessor) || errors.Is(err, handoff.ErrClosed) || errors.Is(err, handoff.ErrUnsupported) {
		tries = maxTries // anything else may be better in a moment
	}
	s.mu.Lock()
	switch {
	case err == nil:
		s.moved++
	case errors.Is(err, handoff.ErrInDoubt):
		s.doubted++
	case tries >= maxTries:
		if s.stayed++; s.why == "" {
			s.why = err.Error()
		}
	}
	s.mu.Unlock()
	if err != nil && !errors.Is(err, handoff.ErrInDoubt) {
		c.l.readopt(c.raw, st, tries)
	}
	s.forget(c)
}

// closeIdle closes what is idle, oldest first, one after the other.
func (s *Server) closeIdle(ctx context.Context, r *Report, spread time.Duration) {
	type idle struct {
		c     *conn
		since time.Duration
	}
	var cs []idle
	for _, c := range s.all() {
		c.mu.Lock()
		if c.isIdleLocked() {
			cs = append(cs, idle{c, c.since})
		}
		c.mu.Unlock()
	}
	slices.SortStableFunc(cs, func(a, b idle) int { return cmp.Compare(a.since, b.since) })
	began := time.Now()
	for i, e := range cs {
		at := time.Duration(float64(spread) * float64(i) / float64(len(cs)))
		if wait := time.Until(began.Add(at)); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return // cut closes the rest
			}
		}
		e.c.mu.Lock()
		still, outer := e.c.isIdleLocked(), e.c.outer
		e.c.mu.Unlock()
		if still {
			_ = outer.Close() // its reader gets an error
			r.Cut[CutIdle]++
		}
	}
}

// isIdleLocked reports whether no request is under way, as far as can be seen,
// and the connection is here.
func (c *conn) isIdleLocked() bool {
	if c.claimed {
		return false
	}
	switch c.phase {
	case phaseParked, phaseIdle:
		return true
	case phaseNew:
		return !c.gotBytes
	}
	return false
}

// cut closes what is left.
func (s *Server) cut(r *Report) { s.cutSome(r, func(*conn) bool { return true }) }

// cutHijacked closes what handlers have taken.
func (s *Server) cutHijacked(r *Report) {
	s.cutSome(r, func(c *conn) bool { return c.phase == phaseHijacked })
}

// cutSome closes those of the open connections that which reports, with the lock held.
func (s *Server) cutSome(r *Report, which func(*conn) bool) {
	for _, c := range s.all() {
		c.mu.Lock()
		if !which(c) {
			c.mu.Unlock()
			continue
		}
		why, outer, gone := CutRequest, c.outer, c.phase == phaseClosed || c.phase == phaseMoving || c.claimed
		switch {
		case c.phase == phaseHijacked:
			why = CutHijacked
		case c.h2 != nil:
			why = CutStream
		case c.isIdleLocked():
			why = CutIdle
		}
		c.mu.Unlock()
		if !gone {
			_ = outer.Close() // its user gets an error
			r.Cut[why]++
		}
	}
}

// finish lets go of net/http and of all goroutines.
func (s *Server) finish(r *Report) {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	close(s.ended)
	s.expire()
	s.cut(r) // connections that returned from a failed move
	// Shutdown with no time left starts what net/http itself has registered, and
	// waits for nothing; Close closes what a handler still uses.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.srv.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		s.log.Debug("listeners", "error", err)
	}
	_ = s.srv.Close() // the same listeners
	s.wg.Wait()
}
