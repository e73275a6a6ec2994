package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

const (
	// maxRequests bounds the requests that are answered at once, so that some
	// of maxHandlers are always left for successors.
	maxRequests = 64
	// requestPatience bounds how long a tool may read nothing.
	requestPatience = 2 * time.Second
	// requestTick is how often a tool hears of open connections.
	requestTick = 200 * time.Millisecond
	// socketsPerAnswer keeps an answer within wire.MaxBody.
	socketsPerAnswer = 512
)

// request is an operator's request that is being answered.
type request struct {
	u       *Upgrader
	link    *session.WireLink
	cred    fdx.Cred
	version uint32
	asked   wire.Request
	gone    chan struct{} // closed when the tool has hung up
	cancel  chan struct{} // closed when it takes its request back
	stopped *Event        // the last one of this process, once pass has seen it
}

// errTooManyRequests is an answer, not one of the package's conditions.
var errTooManyRequests = errors.New("too many requests are being answered: try again")

// serveRequest answers an operator's request, which begins the connection. It
// takes the connection over.
func (u *Upgrader) serveRequest(conn *fdpass.Conn, m wire.Request) {
	r := &request{
		u: u, link: session.NewWireLink(conn, requestPatience), asked: m,
		gone: make(chan struct{}), cancel: make(chan struct{}),
	}
	refuse := func(err error) {
		_ = r.link.Send(session.Refusal(err), nil) // it may be gone
		_ = r.link.Close()
	}
	var ok bool
	if r.version, ok = wire.Choose(m.MinVersion, m.MaxVersion); !ok {
		refuse(fmt.Errorf("%w: the tool speaks protocol versions %d to %d, the server %d to %d", ErrVersion, m.MinVersion, m.MaxVersion, wire.MinVersion, wire.MaxVersion))
		return
	}
	serve := map[string]func() error{
		operate.OpStatus: r.status, operate.OpUpgrade: r.upgrade, operate.OpRollback: r.rollback,
		operate.OpDrain: r.drain, operate.OpEvents: r.events,
	}[m.Op]
	if serve == nil {
		refuse(fmt.Errorf("%w: this server knows no request %q", ErrUnsupported, m.Op))
		return
	}
	cred, err := conn.Peer()
	if err != nil {
		refuse(fmt.Errorf("%w: %w", ErrPeerRefused, err))
		return
	}
	r.cred = cred
	u.ops.mu.Lock()
	full := u.ops.requests >= maxRequests
	if !full {
		u.ops.requests++
	}
	u.ops.mu.Unlock()
	if full {
		refuse(errTooManyRequests)
		return
	}
	told := u.log.Info
	if m.Op == operate.OpStatus || m.Op == operate.OpEvents {
		told = u.log.Debug
	}
	told("request", "op", m.Op, "pid", cred.PID, "uid", cred.UID)
	heard := make(chan struct{})
	u.handlers.Go(func() { // ends with the connection
		defer close(heard)
		r.listen()
	})
	if err := serve(); err != nil {
		r.fail(err)
	}
	_ = r.link.Close() // listen ends
	<-heard
	u.ops.mu.Lock()
	u.ops.requests--
	u.ops.mu.Unlock()
}

// listen hears what else the tool says.
func (r *request) listen() {
	defer close(r.gone)
	canceled := false
	for {
		m, fds, err := r.link.Recv()
		_ = fdx.Close(fds...) // none belong here
		if err != nil {
			return
		}
		if more, ok := m.(*wire.Request); ok && more.Op == operate.OpCancel && !canceled {
			canceled = true
			close(r.cancel)
		}
	}
}

// body decodes the request's own words.
func (r *request) body(into any) error {
	if len(r.asked.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.asked.Body, into); err != nil {
		return fmt.Errorf("%w: body of the request: %w", ErrProtocol, err)
	}
	return nil
}

// send sends an answer. An error says that nobody hears us any more.
func (r *request) send(a operate.Answer, final bool) error { return r.sendWith(a, final, nil) }

// sendProcess sends a descriptor of this process, if the kernel has such a thing.
func (r *request) sendProcess() error {
	fd, err := operate.ProcessFD()
	if err != nil {
		r.u.log.Debug("the operator will not see this process end", "error", err)
		return nil
	}
	return errors.Join(r.sendWith(operate.Answer{}, false, []int{fd}), fdx.Close(fd))
}

// sendWith is send with descriptors, which it borrows.
func (r *request) sendWith(a operate.Answer, final bool, fds []int) error {
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

// fail says why the request came to nothing.
func (r *request) fail(err error) {
	_ = r.send(operate.Answer{Failure: failed(err)}, true) // it may be gone
}

// status answers with the status, and a part of the sockets at a time.
func (r *request) status() error {
	r.u.awaitHistory()
	s := r.u.Status()
	sockets := s.Sockets
	for {
		n := min(len(sockets), socketsPerAnswer)
		s.Sockets, sockets = sockets[:n], sockets[n:]
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := r.send(operate.Answer{Status: b}, len(sockets) == 0); err != nil {
			return err
		}
		if len(sockets) == 0 {
			return nil
		}
		s = Status{} // the rest was said
	}
}

// events answers with the last events, and with those to come until this
// process is at its end.
func (r *request) events() error {
	var asked operate.Events
	if err := r.body(&asked); err != nil {
		return err
	}
	w := r.u.ops.watches.begin(true)
	defer w.end()
	for {
		if err := r.pass(w, func(Event) bool { return true }); err != nil {
			return err
		}
		if r.stopped != nil || !asked.Follow {
			return r.send(operate.Answer{}, true)
		}
		select {
		case <-w.wake:
		case <-r.gone:
			return nil
		}
	}
}

// errLost says that a tool is too slow.
var errLost = errors.New("events were lost: read them faster")

// pass sends on the events that there are, if wanted says so.
func (r *request) pass(w *watch, wanted func(Event) bool) error {
	events, lost := w.take()
	if lost {
		return errLost
	}
	for _, e := range events {
		if e.Kind == EventStopped {
			r.stopped = &e
		}
		if !wanted(e) {
			continue
		}
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := r.send(operate.Answer{Event: b}, false); err != nil {
			return err
		}
	}
	return nil
}

// upgrade starts an upgrade, sees it through, and the linger as well if the tool
// wants that. A tool that hangs up does not end the upgrade: it would not know
// how that went.
func (r *request) upgrade() error {
	var asked operate.Upgrade
	if err := r.body(&asked); err != nil {
		return err
	}
	if err := r.checkExecutable(asked.Executable); err != nil {
		return err
	}
	w := r.u.ops.watches.begin(false)
	defer w.end()
	type end struct {
		report Report
		err    error
	}
	done := make(chan end, 1)
	ctx, cancel := context.WithCancelCause(context.Background())
	r.u.handlers.Go(func() { // ends with the upgrade
		defer cancel(nil)
		ctx := ctx
		if asked.Timeout > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeoutCause(ctx, asked.Timeout, fmt.Errorf("%w: not committed within %v", ErrTimeout, asked.Timeout))
			defer stop()
		}
		var e end
		e.report, e.err = r.u.upgradeTo(ctx, asked.Executable)
		done <- e
	})
	began := false
	ours := func(e Event) bool {
		began = began || e.Kind == EventUpgradeStarted // what came before was another upgrade
		return began
	}
	gone, canceled := r.gone, r.cancel
	for {
		select {
		case <-w.wake:
			_ = r.pass(w, ours) // it may be gone, and does not hear the end either
			if began && asked.Wait == operate.WaitNone {
				return r.send(operate.Answer{}, true)
			}
		case <-canceled:
			canceled = nil
			cancel(errors.New("interrupted by the operator"))
		case <-gone:
			gone = nil
		case e := <-done:
			err := r.pass(w, ours) // those came before
			if e.err != nil {
				return e.err
			}
			if err == nil && asked.Wait == operate.WaitLinger {
				return r.linger(w)
			}
			return r.sendReport(&e.report)
		}
	}
}

func (r *request) sendReport(report *Report) error {
	b, err := json.Marshal(report)
	if err != nil {
		return err
	}
	return r.send(operate.Answer{Report: b}, true)
}

// checkExecutable refuses what must not be started: whom Config.Allow lets in
// may ask for an upgrade, and not for any program to be run as this user.
func (r *request) checkExecutable(path string) error {
	if path == "" {
		return nil
	}
	if r.cred.UID != 0 && r.cred.UID != os.Geteuid() {
		return fmt.Errorf("%w: uid %d may not choose the program that uid %d runs", ErrPeerRefused, r.cred.UID, os.Geteuid())
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: executable %q: give its absolute path", ErrProtocol, path)
	}
	if r.u.cfg.Mode == Inherit {
		return fmt.Errorf("%w: in mode inherit tableflip starts %s again: replace that file", ErrUnsupported, r.u.cfg.program.Path)
	}
	return nil
}

// linger tells of the open connections until this process is at its end.
func (r *request) linger(w *watch) error {
	tick := time.NewTicker(requestTick)
	defer tick.Stop()
	tell := func(final bool, report []byte) error {
		c := r.u.conns.counts()
		l := &operate.Linger{Open: c.open, Moved: c.moved, Cut: c.cut, Remaining: r.u.remaining()}
		return r.send(operate.Answer{Linger: l, Report: report}, final)
	}
	for r.stopped == nil {
		if err := tell(false, nil); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-w.wake:
			if err := r.pass(w, func(Event) bool { return true }); err != nil {
				return err
			}
		case <-r.gone:
			return nil
		}
	}
	var report []byte
	if r.stopped.Report != nil {
		var err error
		if report, err = json.Marshal(r.stopped.Report); err != nil {
			return err
		}
	}
	return tell(true, report)
}

// rollback takes the sockets back from a successor that is not committed.
func (r *request) rollback() error {
	var asked operate.Rollback
	if err := r.body(&asked); err != nil {
		return err
	}
	if asked.Reason == "" {
		asked.Reason = "the operator has asked for it"
	}
	up, err := r.u.rollback(asked.Reason)
	if err != nil {
		return err
	}
	select {
	case <-up.over.Done():
	case <-r.gone:
		return nil
	}
	if up.err == nil {
		return fmt.Errorf("%w: pid %d has the sockets", ErrCommitted, up.account.report.Successor.PID)
	}
	return r.sendReport(up.account.copy())
}

// drain begins a graceful end without a successor.
func (r *request) drain() error {
	var asked operate.Drain
	if err := r.body(&asked); err != nil {
		return err
	}
	if asked.Reason == "" {
		asked.Reason = "the operator has asked for it"
	}
	w := r.u.ops.watches.begin(false)
	defer w.end()
	r.u.stop(asked.Reason)
	if asked.Wait == operate.WaitNone {
		return r.send(operate.Answer{}, true)
	}
	if asked.Process {
		if err := r.sendProcess(); err != nil {
			return err
		}
	}
	return r.linger(w)
}
