package handoffhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// Shutdown ends the service as [http.Server.Shutdown] does, and fails no request. It begins
// with [Config.Delay], in which only the responses change: they carry "Connection: close".
// Then the listeners accept no more. A member of a SO_REUSEPORT group leaves the group by
// [reuseport.Listener.Drain], also if a wrapper embeds it, and the Server serves the
// connections of its queue. Shutdown closes other listeners, and the kernel resets what is
// in their queues, unless another process has the socket, as systemd: so a member of a
// group has to be made by [reuseport.Listen], not by a [net.ListenConfig]. Then Shutdown
// lingers, as [Server.Linger] describes.
//
// Shutdown returns when no connection is left. Idle connections wait for the next request
// of their client, at most for [Config.LingerTimeout], or for less if the deadline of ctx
// is earlier. The Server serves requests until ctx ends. Shutdown returns an error that
// matches that of ctx if it has cut requests, and one that matches
// [reuseport.ErrIncomplete] if connections were lost in a queue. After it, Linger returns
// the [Report].
//
// With an Upgrader, Shutdown ends the Upgrader as well, by [handoff.Upgrader.Shutdown],
// and returns its error. The limits are the Upgrader's then.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, stop := s.untilClose(ctx)
	defer stop()
	if s.whole == nil {
		s.delay(ctx)
	} else {
		over := make(chan struct{})
		go func() { // ends with the Upgrader, which waits for Linger
			defer close(over)
			s.Linger(ctx)
		}()
		err := s.whole.Shutdown(ctx)
		<-over
		return err
	}
	r := s.Linger(ctx)
	s.mu.Lock()
	err := s.failed
	s.mu.Unlock()
	if n := r.Cut[CutRequest] + r.Cut[CutStream]; n > 0 {
		err = errors.Join(err, fmt.Errorf("handoffhttp: shutdown: requests were cut, on %d connections: %w", n, cmp.Or(context.Cause(ctx), context.Cause(s.closed))))
	}
	return err
}

// Close ends the service at once, as [http.Server.Close] does: it closes the listeners, and
// cuts what is left of the connections, also those for which Shutdown or Linger waits in
// another goroutine. Close returns when they are closed. It returns nil, or with an
// Upgrader the error of [handoff.Upgrader.Close].
func (s *Server) Close() error {
	s.cutNow(http.ErrServerClosed)
	return s.close()
}

// untilClose returns a context that ends with ctx, and with Close.
func (s *Server) untilClose(ctx context.Context) (until context.Context, stop func()) {
	until, cancel := context.WithCancelCause(ctx)
	if s.closed.Err() != nil {
		cancel(context.Cause(s.closed)) // before AfterFunc's goroutine does
	}
	release := context.AfterFunc(s.closed, func() { cancel(context.Cause(s.closed)) })
	return until, func() { release(); cancel(nil) }
}

// Readiness returns a handler for the readiness check of a load balancer or of
// Kubernetes: it answers 200 until Shutdown is called, or the Upgrader stops without a
// successor, and 503 from then on.
func (s *Server) Readiness() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if s.ready() {
			_, _ = w.Write([]byte("ready\n")) // the client may be gone
			return
		}
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
	})
}

func (s *Server) ready() bool {
	if s.whole != nil && isClosed(s.whole.Done()) {
		_, replaced := s.whole.Successor()
		return replaced
	}
	return !s.closes.Load()
}

// delay has responses end their connections, and waits for Config.Delay.
func (s *Server) delay(ctx context.Context) {
	s.ending.Do(func() {
		var done <-chan struct{}
		if s.up != nil {
			done = s.up.Done()
		}
		if s.cfg.delay <= 0 || isClosed(done) {
			return
		}
		s.sayClose()
		t := time.NewTimer(s.cfg.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-done:
		case <-ctx.Done():
		}
	})
}

// sayClose has connections end after the next response.
func (s *Server) sayClose() {
	s.closes.Store(true)
	for _, c := range s.all() {
		c.mu.Lock()
		h2 := c.h2
		c.mu.Unlock()
		if h2 != nil {
			h2.leave()
		}
	}
}

// A drainer leaves a SO_REUSEPORT group: a reuseport.Listener, or a Group's.
type drainer interface {
	Drain(ctx context.Context) (reuseport.Report, error)
}

// drainerOf returns what drains ln, nil if nothing does. A wrapper, like those of
// crypto/tls and netutil, has the listener that it wraps in its field Listener, as the
// embedding of a net.Listener has it.
func drainerOf(ln net.Listener) drainer {
	for ln != nil {
		if d, ok := ln.(drainer); ok {
			return d
		}
		v := reflect.Indirect(reflect.ValueOf(ln))
		if v.Kind() != reflect.Struct {
			return nil
		}
		f := v.FieldByName("Listener")
		if !f.IsValid() || !f.CanInterface() {
			return nil
		}
		ln, _ = f.Interface().(net.Listener)
	}
	return nil
}

// leaveListeners has the listeners that are not the Upgrader's accept no more, in the
// background and until ctx ends.
func (s *Server) leaveListeners(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if !l.moves {
			s.wg.Go(func() { l.leave(ctx) }) // ends with ctx
		}
	}
}

// leave drains the listener, if it can be drained, and closes it.
func (l *listener) leave(ctx context.Context) {
	s := l.srv
	if d := drainerOf(l.inner); d != nil {
		r, err := d.Drain(ctx)
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, net.ErrClosed) {
			err = nil // it is closed, as others are
		}
		s.mu.Lock()
		s.drains, s.failed = append(s.drains, r), errors.Join(s.failed, err)
		s.mu.Unlock()
	}
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Debug("close a listener", "address", l.Addr(), "error", err)
	}
}
