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
// down. It returns nil after a commit or a stop, when all connections have ended; the
// Upgrader's error if the upgrade that brought this process has failed; or why srv
// could not be served.
//
// When ctx ends, the service stops, as by a stop signal.
//
// srv is prepared by [New] with a nil config, which says what that does to it.
func Run(ctx context.Context, up *handoff.Upgrader, srv *http.Server, ln ...net.Listener) error {
	return New(up, srv, nil).Run(ctx, ln...)
}

// RunTLS is [Run] for TLS, see [Server.ServeTLS].
func RunTLS(ctx context.Context, up *handoff.Upgrader, srv *http.Server, certFile, keyFile string, ln ...net.Listener) error {
	return New(up, srv, nil).RunTLS(ctx, certFile, keyFile, ln...)
}

// Run is [Run] for a Server with a [Config] of its own.
func (s *Server) Run(ctx context.Context, ln ...net.Listener) error {
	var serve []func() error
	for _, ln := range ln {
		l := s.wrap(ln, false)
		serve = append(serve, func() error { return s.serve(l) })
	}
	return s.run(ctx, serve)
}

// RunTLS is [RunTLS] for a Server with a [Config] of its own.
func (s *Server) RunTLS(ctx context.Context, certFile, keyFile string, ln ...net.Listener) error {
	var serve []func() error
	for _, ln := range ln {
		l, err := s.listenTLS(ln, certFile, keyFile)
		if err != nil {
			return errors.Join(err, s.close())
		}
		serve = append(serve, func() error { return s.serve(l) })
	}
	return s.run(ctx, serve)
}

// close ends a service that has not begun.
func (s *Server) close() error {
	err := s.whole.Close()
	s.Linger(context.Background())
	return err
}

func (s *Server) run(ctx context.Context, serve []func() error) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(serve))
	for _, f := range serve {
		wg.Go(func() { // ends with Done, or with srv
			if err := f(); err != nil {
				failed <- err
			}
		})
	}
	if err := s.whole.Ready(); err != nil {
		err = errors.Join(err, s.close())
		wg.Wait()
		return err
	}
	var err, shutErr error
	select {
	case <-s.up.Done():
	case <-ctx.Done():
	case err = <-failed:
		select {
		case <-s.up.Done():
			err = nil // that is why
		default:
		}
	}
	// If the Upgrader isn't done yet it is now; it waits for the linger.
	wg.Go(func() { shutErr = s.whole.Shutdown(context.WithoutCancel(ctx)) })
	s.Linger(context.WithoutCancel(ctx))
	wg.Wait()
	return errors.Join(err, s.whole.Err(), shutErr)
}
