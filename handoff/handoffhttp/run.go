package handoffhttp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff"
)

// Run is the whole life of a server: it serves srv on the listeners, calls
// [handoff.Upgrader.Ready], takes idle connections over from the predecessor, serves
// until [handoff.Upgrader.Done], lingers (see [Server.Linger]) and shuts the Upgrader
// down. It returns nil after a commit or a stop, when all connections have ended. It
// returns the Upgrader's error if the upgrade that started this process has failed, or the
// error that kept it from serving.
//
// up may be nil: then Run serves until ctx ends, and the program ends ctx on SIGTERM. With
// an Upgrader, too, the end of ctx ends the service as [Server.Shutdown] does. Run cuts
// the connections that are left after [Config.Delay] and the linger limit.
//
// Run calls [New] with a Config that has only the Upgrader; for others see [Server.Run].
func Run(ctx context.Context, up *handoff.Upgrader, srv *http.Server, ln ...net.Listener) error {
	return New(srv, &Config{Upgrader: up}).Run(ctx, ln...)
}

// RunTLS is [Run] for TLS, see [Server.ServeTLS].
func RunTLS(ctx context.Context, up *handoff.Upgrader, srv *http.Server, certFile, keyFile string, ln ...net.Listener) error {
	return New(srv, &Config{Upgrader: up}).RunTLS(ctx, certFile, keyFile, ln...)
}

// Run is [Run] for a Server with a [Config] of its own.
func (s *Server) Run(ctx context.Context, ln ...net.Listener) error {
	var serve []func() error
	for _, ln := range ln {
		l := s.wrap(ln, false)
		serve = append(serve, func() error { return s.serve(l, l) })
	}
	return s.run(ctx, serve)
}

// RunTLS is [RunTLS] for a Server with a [Config] of its own.
func (s *Server) RunTLS(ctx context.Context, certFile, keyFile string, ln ...net.Listener) error {
	var serve []func() error
	for _, ln := range ln {
		l, secure, err := s.listenTLS(ln, certFile, keyFile)
		if err != nil {
			return errors.Join(err, s.close())
		}
		serve = append(serve, func() error { return s.serve(l, secure) })
	}
	return s.run(ctx, serve)
}

// close ends a service that has not begun.
func (s *Server) close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if s.whole == nil {
		s.Linger(ctx)
		return nil
	}
	over := make(chan struct{})
	go func() { // ends with ctx, which has ended
		defer close(over)
		s.Linger(ctx)
	}()
	err := s.whole.Close()
	<-over
	return err
}

func (s *Server) run(ctx context.Context, serve []func() error) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(serve))
	for _, f := range serve {
		wg.Go(func() { // ends with Done, with Shutdown, or with its listener
			if err := f(); err != nil {
				failed <- err
			}
		})
	}
	var done <-chan struct{} // never without an Upgrader
	if s.whole != nil {
		done = s.whole.Done()
		if err := s.whole.Ready(); err != nil {
			err = errors.Join(err, s.close())
			wg.Wait()
			return err
		}
	}
	var err error
	select {
	case <-done:
	case <-ctx.Done():
	case err = <-failed:
		if errors.Is(err, http.ErrServerClosed) || isClosed(done) {
			err = nil // that is why
		}
	}
	shut := s.shutdownInTime(context.WithoutCancel(ctx))
	wg.Wait()
	var why error
	if s.whole != nil {
		if why = s.whole.Err(); why != nil && errors.Is(err, net.ErrClosed) {
			err = nil // the Upgrader has closed the listener, before Done
		}
	}
	return errors.Join(err, shut, why)
}

// shutdownInTime is Shutdown with a limit for requests, too: a quarter of the linger limit
// after that of idle connections, see limits.
func (s *Server) shutdownInTime(ctx context.Context) error {
	if s.whole == nil && s.cfg.lingerTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.delay+s.cfg.lingerTimeout*5/4)
		defer cancel()
	}
	return s.Shutdown(ctx)
}
