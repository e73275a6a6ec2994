package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

const (
	// requestTimeout bounds how long a tool may read nothing.
	requestTimeout = 2 * time.Second
	// lingerTick is how often a tool gets the counts of the open connections.
	lingerTick = 200 * time.Millisecond
)

// defaultReason is that of a tool that gives none.
const defaultReason = "the operator has asked for it"

// request is a tool's request that is being answered.
type request struct {
	server  *Server
	link    *session.WireLink
	peer    fdx.Cred
	version uint32
	asked   wire.Request
	wanted  context.Context         // ends when the tool cancels the request
	cancel  context.CancelCauseFunc // of wanted
	last    bool                    // pass has seen the last event of this process
}

// serveRequest answers the request that begins a connection. It takes ownership of
// conn.
func (s *Server) serveRequest(conn *fdpass.Conn, peer fdx.Cred, m wire.Request) {
	r := &request{server: s, link: session.NewWireLink(conn, requestTimeout), peer: peer, asked: m}
	var ok bool
	if r.version, ok = wire.Choose(m.MinVersion, m.MaxVersion); !ok {
		refuse(r.link, fmt.Errorf("%w: the tool speaks protocol versions %d to %d, the server %d to %d", failure.Version, m.MinVersion, m.MaxVersion, wire.MinVersion, wire.MaxVersion))
		return
	}
	serve := map[string]func(context.Context) error{
		OpStatus: r.status, OpUpgrade: r.upgrade, OpRollback: r.rollback, OpDrain: r.drain, OpEvents: r.events,
	}[m.Op]
	if serve == nil {
		refuse(r.link, fmt.Errorf("%w: this server knows no request %q", failure.Unsupported, m.Op))
		return
	}
	if own := s.Name; m.Name != "" && own != "" && m.Name != own {
		refuse(r.link, fmt.Errorf("%w: the server at this socket has the Name %q, and the request is for %q: another user may have moved its folder", failure.PeerRefused, own, m.Name))
		return
	}
	release, ok := s.place(m.Op)
	defer release()
	if !ok {
		refuse(r.link, errors.New("the server answers too many requests at once: try again"))
		return
	}
	log := s.Log.Info
	if m.Op == OpStatus || m.Op == OpEvents {
		log = s.Log.Debug
	}
	log("request", "op", m.Op, "pid", peer.PID, "uid", peer.UID)
	r.wanted, r.cancel = context.WithCancelCause(context.Background())
	defer r.cancel(nil)
	ctx, gone := context.WithCancel(context.Background())
	s.running.Go(func() { // ends with the connection
		defer gone()
		r.receive()
	})
	if err := serve(ctx); err != nil {
		_ = r.send(Answer{Failure: failureOf(err)}, true) // the tool may be gone
	}
	_ = r.link.Close() // receive returns
	<-ctx.Done()
}

// place takes a place for a request, if there is one. The caller calls release in any
// case.
func (s *Server) place(op string) (release func(), ok bool) {
	taken, limit := &s.commands, int64(maxCommands)
	switch op {
	case OpEvents:
		taken, limit = &s.followers, maxFollowers
	case OpStatus:
		taken, limit = &s.readers, maxReaders
	case OpRollback:
		limit += maxRollbacks
	}
	for n := taken.Load(); n < limit; n = taken.Load() {
		if taken.CompareAndSwap(n, n+1) {
			return func() { taken.Add(-1) }, true
		}
	}
	return func() {}, false
}

// receive reads what else the tool sends, until it closes the connection.
func (r *request) receive() {
	for {
		m, fds, err := r.link.Recv()
		_ = fdx.Close(fds...) // none belong here
		if err != nil {
			return
		}
		if more, ok := m.(*wire.Request); ok && more.Op == OpCancel {
			r.cancel(errors.New("interrupted by the operator"))
		}
	}
}

// body decodes the body of the request.
func (r *request) body(into any) error {
	if len(r.asked.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.asked.Body, into); err != nil {
		return fmt.Errorf("%w: body of the request: %w", failure.Protocol, err)
	}
	return nil
}

// send sends an answer, with descriptors that stay the caller's.
func (r *request) send(a Answer, final bool, fds ...int) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	m := &wire.Response{Final: final, Body: b, Version: r.version}
	if err := wire.Check(m); err != nil {
		return err
	}
	return r.link.Send(m, fds)
}

// sendProcess sends a descriptor of this process, if the kernel has such a thing.
func (r *request) sendProcess() error {
	p, err := procs.OpenPidfd(os.Getpid())
	if err != nil {
		r.server.Log.Debug("the client can't wait for the end of this process", "error", err)
		return nil
	}
	defer p.Close() // the tool has a copy
	fd, err := fdx.Number(p)
	if err != nil {
		return err
	}
	return r.send(Answer{}, false, fd)
}

// status answers with the status.
func (r *request) status(context.Context) error {
	parts := r.server.Service.Status()
	for i, part := range parts {
		if err := r.send(Answer{Status: part}, i == len(parts)-1); err != nil {
			return err
		}
	}
	return nil
}

// events answers with the kept events, and with later ones up to the last of this
// process.
func (r *request) events(ctx context.Context) error {
	var asked Events
	if err := r.body(&asked); err != nil {
		return err
	}
	sub := r.server.Subscribers.subscribe(maxQueued, true)
	defer sub.close()
	for {
		if err := r.pass(sub, nil); err != nil {
			return err
		}
		if r.last || !asked.Follow {
			return r.send(Answer{}, true)
		}
		select {
		case <-sub.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// pass sends the events that wait. wanted, if not nil, selects them.
func (r *request) pass(sub *Subscriber, wanted func(Event) bool) error {
	events, err := sub.take()
	if err != nil {
		return err
	}
	for _, e := range events {
		r.last = r.last || e.Last
		if wanted != nil && !wanted(e) {
			continue
		}
		if err := r.send(Answer{Event: e.Value}, false); err != nil {
			return err
		}
	}
	return nil
}

// upgrade starts an upgrade and answers with its events and its end, and with the
// linger if the tool waits for that. The upgrade continues when the tool closes the
// connection: it could not see how an upgrade ends that it has canceled.
func (r *request) upgrade(ctx context.Context) error {
	var asked Upgrade
	if err := r.body(&asked); err != nil {
		return err
	}
	if err := r.checkProgram(&asked); err != nil {
		return err
	}
	sub := r.server.Subscribers.subscribe(maxQueued, false)
	defer sub.close()
	wanted := r.wanted
	if asked.Timeout > 0 {
		var stop context.CancelFunc
		wanted, stop = context.WithTimeoutCause(wanted, asked.Timeout, fmt.Errorf("%w: not committed within %v", failure.Timeout, asked.Timeout))
		defer stop()
	}
	started := false
	ours := func(e Event) bool {
		started = started || e.Starts // an event before that is of the upgrade before
		return started
	}
	ended := make(chan struct{})
	var events sync.WaitGroup
	events.Go(func() {
		for {
			select {
			case <-sub.wake:
				_ = r.pass(sub, ours) // the tool may be gone
			case <-ended:
				return
			}
			if started && asked.Wait == WaitNone {
				_ = r.send(Answer{}, true) // likewise
				_ = r.link.Close()
				return
			}
		}
	})
	report, err := r.server.Service.Upgrade(wanted, asked)
	close(ended)
	events.Wait()
	lost := r.pass(sub, ours) // they come before the end
	switch {
	case err != nil:
		return err
	case lost == nil && asked.Wait == WaitLinger:
		return r.linger(ctx, sub)
	}
	return r.send(Answer{Report: report}, true)
}

// checkProgram refuses a program or environment that the peer may not choose for this
// user: Config.Allow lets it ask for an upgrade, and no more.
func (r *request) checkProgram(asked *Upgrade) error {
	path := asked.Executable
	switch {
	case path == "" && asked.Env == nil:
	case !trust.User(r.peer.UID):
		return fmt.Errorf("%w: uid %d may not choose the program that uid %d runs, or its environment", failure.PeerRefused, r.peer.UID, os.Geteuid())
	case path != "" && !filepath.IsAbs(path):
		return fmt.Errorf("%w: executable %q: give its absolute path", failure.Protocol, path)
	}
	for _, v := range asked.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.Contains(v, "\x00") {
			return fmt.Errorf("%w: environment %q: want KEY=VALUE", failure.Protocol, v)
		}
	}
	return nil
}

// linger answers with events and with the counts of the open connections, up to the
// last event of this process.
func (r *request) linger(ctx context.Context, sub *Subscriber) error {
	tick := time.NewTicker(lingerTick)
	defer tick.Stop()
	for {
		l := r.server.Service.Linger()
		if err := r.send(Answer{Linger: &l}, r.last); err != nil || r.last {
			return err
		}
		select {
		case <-tick.C:
		case <-sub.wake:
			if err := r.pass(sub, nil); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// rollback takes the sockets back from a successor that is not committed.
func (r *request) rollback(ctx context.Context) error {
	var asked Rollback
	if err := r.body(&asked); err != nil {
		return err
	}
	report, err := r.server.Service.Rollback(ctx, cmp.Or(asked.Reason, defaultReason))
	if err != nil {
		return err
	}
	return r.send(Answer{Report: report}, true)
}

// drain begins a graceful end without a successor.
func (r *request) drain(ctx context.Context) error {
	var asked Drain
	if err := r.body(&asked); err != nil {
		return err
	}
	sub := r.server.Subscribers.subscribe(maxQueued, false)
	defer sub.close()
	var err error
	if asked.Process { // first: a program that does not call Shutdown may end as soon as Done is closed
		err = r.sendProcess()
	}
	r.server.Service.Stop(cmp.Or(asked.Reason, defaultReason)) // the tool may be gone
	switch {
	case err != nil:
		return err
	case asked.Wait == WaitNone:
		return r.send(Answer{}, true)
	}
	return r.linger(ctx, sub)
}
