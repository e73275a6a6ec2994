package handoffquic

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
)

// Run is the whole life of an HTTP/3 server: it serves srv on address, calls
// [handoff.Upgrader.Ready], serves until Done, serves its connections until their clients
// close them, and shuts the Upgrader down. It returns nil after a commit or a stop, when
// all connections have ended; the Upgrader's error if the upgrade that started this process
// has failed; or the error that kept it from serving.
//
// After a stop, or when ctx ends, srv sends GOAWAY at once.
//
// srv needs a TLSConfig. Run does not change srv; without a QUICConfig it allows 0-RTT, as
// [http3.Server.Serve] does. A nil cfg is the zero Config.
func Run(ctx context.Context, up *handoff.Upgrader, srv *http3.Server, address string, cfg *Config) error {
	s, err := Start(ctx, up, srv, address, cfg)
	if err != nil {
		return errors.Join(err, up.Close())
	}
	if err = up.Ready(); err == nil {
		select {
		case <-up.Done():
		case <-ctx.Done():
		case <-s.ended:
		}
	}
	return errors.Join(err, up.Shutdown(context.WithoutCancel(ctx)), s.Wait(), up.Err())
}

// A Server is an HTTP/3 server that Start has started.
type Server struct {
	up       *handoff.Upgrader
	srv      *http3.Server
	endpoint *Endpoint
	grace    time.Duration
	ended    chan struct{}
	err      error // valid then
}

// Start is [Run] for a program that has other servers as well: the program calls Ready
// when all have started, and Shutdown, which waits for the connections of srv, or has
// another server's Run do that.
func Start(ctx context.Context, up *handoff.Upgrader, srv *http3.Server, address string, cfg *Config) (*Server, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	e, err := Listen(ctx, up, address, cfg)
	if err != nil {
		return nil, err
	}
	ln, err := e.listen(srv)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	s := &Server{
		up: up, srv: srv, endpoint: e, ended: make(chan struct{}),
		grace: min(cmp.Or(cfg.Grace, DefaultGrace), maxGrace),
	}
	release := up.Hold(e.Open)
	go s.serve(ln, release) // ends after Done; Shutdown waits for release
	return s, nil
}

// Wait returns when the server has ended: nil, or the error that kept it from serving.
func (s *Server) Wait() error {
	<-s.ended
	return s.err
}

// listen has the endpoint accept connections for srv.
func (e *Endpoint) listen(srv *http3.Server) (*quic.EarlyListener, error) {
	if srv.TLSConfig == nil {
		return nil, errors.New("handoffquic: the http3.Server has no TLSConfig")
	}
	t, err := e.TLS(srv.TLSConfig)
	if err != nil {
		return nil, err
	}
	q := &quic.Config{Allow0RTT: true}
	if srv.QUICConfig != nil {
		q = srv.QUICConfig.Clone()
	}
	q.EnableDatagrams = q.EnableDatagrams || srv.EnableDatagrams
	return e.Transport.ListenEarly(http3.ConfigureTLSConfig(t), q)
}

func (s *Server) serve(ln *quic.EarlyListener, release func(map[string]uint64)) {
	defer close(s.ended)
	served := make(chan error, 1)
	go func() { served <- s.srv.ServeListener(ln) }() // ends with Shutdown of srv
	var err error
	select {
	case <-s.up.Done():
		// Where another process serves, the clients of this one may not notice that.
		if _, replaced := s.up.Successor(); replaced || s.up.Err() != nil {
			s.endpoint.Linger(s.up.LingerExpired())
		}
	case err = <-served:
		served <- err // for below
		if errors.Is(err, http.ErrServerClosed) {
			err = nil // the program has closed srv
		}
	}
	cut := s.end(s.up.LingerExpired())
	<-served
	s.err = errors.Join(err, ln.Close(), s.endpoint.Close())
	release(cut) // Shutdown closes the socket
}

// end sends GOAWAY to the connections that are open, and closes those that are left at the
// linger limit, or within the grace after it. It returns how many it has ended, by reason.
func (s *Server) end(expired <-chan struct{}) map[string]uint64 {
	var late <-chan time.Time
	select {
	case <-expired:
		expired = nil
		timer := time.NewTimer(s.grace)
		defer timer.Stop()
		late = timer.C
	default:
	}
	asked, left := s.endpoint.Open(), 0
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		_ = s.srv.Shutdown(ctx) // its error is that of ctx
	}()
	select {
	case <-done:
	case <-expired:
		left = s.endpoint.Open()
	case <-late:
		left = s.endpoint.Open()
	}
	cancel()
	<-done
	cut := make(map[string]uint64)
	if left > 0 {
		cut["quic"] = uint64(left)
	}
	if late != nil && asked > left {
		cut["quic goaway"] = uint64(asked - left)
	}
	return cut
}
