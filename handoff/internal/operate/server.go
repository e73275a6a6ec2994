package operate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

const (
	// maxConns bounds the connections that are served at the same time; others wait
	// in the accept queue. From patientConns on a connection has hurriedTimeout for
	// its first message, so that silent peers do not keep a successor waiting.
	maxConns     = 512
	patientConns = 64
	// The requests that are answered at the same time, by kind, which leave some of
	// maxConns to successors. Those that follow events, for ever perhaps, keep no
	// other waiting, and a rollback finds a place when no other command does.
	maxFollowers = 32
	maxReaders   = 16
	maxCommands  = 15
	maxRollbacks = 1
	// hurriedTimeout is the time for the first message when the server stops, or has
	// many connections.
	hurriedTimeout = 200 * time.Millisecond
	// acceptRetry is the pause after an error of Accept: short of descriptors, most
	// likely. Connections wait in the accept queue.
	acceptRetry = 100 * time.Millisecond
)

// A Service is the process that a Server answers for. A report, a part of the
// status and an event marshal to JSON.
type Service interface {
	// Status returns the status in parts that fit into a message each.
	Status() []any
	// Upgrade starts a successor, from the program asked for or, where that is empty,
	// from the service's own. It returns the report when the successor is committed, and an
	// error that matches *FailedUpgrade where the upgrade began and failed. When ctx
	// ends before the commit, it rolls back.
	Upgrade(ctx context.Context, asked Upgrade) (report any, err error)
	// Rollback takes the sockets back from a successor that is not committed, and
	// returns the report. It stops waiting for that when ctx ends.
	Rollback(ctx context.Context, reason string) (report any, err error)
	// Stop begins a graceful end without a successor.
	Stop(reason string)
	// Linger returns the counts of the open connections.
	Linger() Linger
	// Join begins the conversation with a successor that has dialled. The link is
	// the service's unless Join returns an error.
	Join(a session.Arrival, peer fdx.Cred) error
}

// A Server answers at a control socket. All fields but Name and Allow are required.
type Server struct {
	Service Service
	// Name is that of the service, and empty if it has none.
	Name string
	// Allow reports whether a peer of another user, root apart, may talk to the
	// server.
	Allow       func(fdx.Cred) bool
	Subscribers *Subscribers
	Log         hclog.Logger
	// Timeout is the silence after which a peer counts as hung.
	Timeout time.Duration
	// Stop is closed when the process is about to end: a connection without a first
	// message has hurriedTimeout then.
	Stop <-chan struct{}

	running  sync.WaitGroup // connections
	warnings limiter

	followers, readers, commands atomic.Int64 // requests that are being answered
}

// Serve answers the connections that accept returns, until its error matches
// [net.ErrClosed]. It returns when all are answered: those that have started an upgrade
// when that has ended.
func (s *Server) Serve(accept func() (net.Conn, error)) {
	defer s.running.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		c, err := accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.warn("control socket", "error", err)
			retry := time.NewTimer(acceptRetry)
			select {
			case <-retry.C:
			case <-s.Stop:
			}
			retry.Stop()
			continue
		}
		uc, ok := c.(*net.UnixConn)
		if !ok {
			_ = c.Close() // can't be
			continue
		}
		slots <- struct{}{}
		timeout := s.Timeout
		if len(slots) > patientConns {
			timeout = hurriedTimeout
		}
		s.running.Go(func() {
			defer func() { <-slots }()
			s.serveConn(fdpass.New(uc), timeout)
		})
	}
}

// serveConn serves one connection, whose first message has to come in time. It
// takes ownership of conn.
func (s *Server) serveConn(conn *fdpass.Conn, timeout time.Duration) {
	link := session.NewWireLink(conn, s.Timeout)
	cred, err := conn.Peer()
	if err := CheckPeer(cred, err, s.Allow); err != nil {
		s.warn("control socket", "error", err)
		refuse(link, err)
		return
	}
	m, err := s.first(conn, link, timeout)
	if err != nil {
		s.Log.Debug("control socket", "error", err)
		refuse(link, fmt.Errorf("%w: the client has sent no request in time", failure.Closed))
		return
	}
	switch m := m.(type) {
	case *wire.Request:
		s.serveRequest(conn, cred, *m)
	case *wire.Hello:
		if err := s.Service.Join(session.Arrival{Link: link, Hello: *m}, cred); err != nil {
			s.warn("successor refused", "pid", m.PID, "error", err)
			refuse(link, err)
		}
	default:
		refuse(link, fmt.Errorf("%w: the first message is neither that of a successor nor a request", failure.Unsupported))
	}
}

// first returns the first message of a connection.
func (s *Server) first(conn *fdpass.Conn, link *session.WireLink, timeout time.Duration) (wire.Message, error) {
	_ = conn.SetReadDeadline(time.Now().Add(timeout)) // a closed one fails below
	received := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-received:
		case <-s.Stop:
			// It was accepted: if its message is on the way, it gets an answer.
			_ = conn.SetReadDeadline(time.Now().Add(hurriedTimeout))
		}
	})
	m, fds, err := link.Recv()
	close(received)
	watch.Wait() // or it could set its deadline after the next line
	_ = conn.SetReadDeadline(time.Time{})
	_ = fdx.Close(fds...) // none belong here
	return m, err
}

// warn logs a warning, unless there were many of late: any process may cause one.
func (s *Server) warn(text string, args ...any) {
	left, ok := s.warnings.take(time.Now())
	if !ok {
		return
	}
	if left > 0 {
		args = append(args, "warnings left out", left)
	}
	s.Log.Warn(text, args...)
}

// refuse ends a connection with the reason.
func refuse(link *session.WireLink, reason error) {
	_ = link.Send(session.Refusal(reason), nil) // the peer may be gone
	_ = link.Close()
}

// CheckPeer returns an error unless the peer is of this process's user, or root, or
// allowed by allow, which may be nil. cred and err say who it is, as the kernel has
// it (SO_PEERCRED, unix(7)).
func CheckPeer(cred fdx.Cred, err error, allow func(fdx.Cred) bool) error {
	if err != nil {
		return fmt.Errorf("%w: %w", failure.PeerRefused, err)
	}
	if trust.User(cred.UID) || allow != nil && allow(cred) {
		return nil
	}
	if cred.UID == os.Geteuid() {
		return fmt.Errorf("%w: pid %d and this process have uid %d, which in this user namespace stands for every user that it does not map: run the service as another user, or set Config.Allow", failure.PeerRefused, cred.PID, cred.UID)
	}
	return fmt.Errorf("%w: pid %d has uid %d, pid %d has uid %d: run both as one user, or set Config.Allow", failure.PeerRefused, cred.PID, cred.UID, os.Getpid(), os.Geteuid())
}
