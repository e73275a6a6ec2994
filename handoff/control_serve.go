package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// maxHandlers bounds the connections of the control socket that are served at
// once; others wait in its queue. From patientHandlers on a connection has to
// say at once what it wants, so that peers which say nothing do not hold up a
// successor.
const (
	maxHandlers     = 512
	patientHandlers = 64
)

// lastOrders is the time that a connection of the control socket gets to say
// what it wants when this process ends, or has too many of them.
const lastOrders = 200 * time.Millisecond

// serveControl answers at the control socket until that is shut. Its gate is
// open only in the process that serves.
func (u *Upgrader) serveControl() {
	slots := make(chan struct{}, maxHandlers)
	for {
		c, err := u.control.Listener.Accept(nil)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			u.log.Warn("control socket", "error", err)
			// Short of descriptors, most likely: the queue holds what comes.
			t := time.NewTimer(100 * time.Millisecond)
			select {
			case <-t.C:
			case <-u.closing:
			}
			t.Stop()
			continue
		}
		uc, ok := c.(*net.UnixConn)
		if !ok {
			_ = c.Close() // can't be
			continue
		}
		slots <- struct{}{}
		patience := u.cfg.hang
		if len(slots) > patientHandlers {
			patience = lastOrders
		}
		u.handlers.Go(func() { // ends with the connection's first message, or its deadline
			defer func() { <-slots }()
			u.answer(fdpass.New(uc), patience)
		})
	}
}

// answer serves one connection of the control socket, which has so long to say
// what it wants. It takes the connection over.
func (u *Upgrader) answer(conn *fdpass.Conn, patience time.Duration) {
	link := session.NewWireLink(conn, u.cfg.hang)
	refuse := func(err error) {
		_ = link.Send(session.Refusal(err), nil) // it may be gone
		_ = link.Close()
	}
	if err := u.checkPeer(conn.Peer()); err != nil {
		u.log.Warn("control socket", "error", err)
		refuse(err)
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience)) // a closed one fails below
	heard := make(chan struct{})
	u.handlers.Go(func() { // ends with the message, or with closing
		select {
		case <-heard:
		case <-u.closing:
			// We have accepted it: one that is about to speak gets an answer.
			_ = conn.SetReadDeadline(time.Now().Add(lastOrders))
		}
	})
	m, fds, err := link.Recv()
	close(heard)
	_ = fdx.Close(fds...) // none belong here
	if err != nil {
		u.log.Debug("control socket", "error", err)
		refuse(fmt.Errorf("%w: nothing was asked in time", ErrClosed))
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	if r, ok := m.(*wire.Request); ok {
		u.serveRequest(conn, *r)
		return
	}
	hello, ok := m.(*wire.Hello)
	if !ok {
		refuse(fmt.Errorf("%w: neither a successor nor a request", ErrUnsupported))
		return
	}
	if err := u.offer(session.Arrival{Link: link, Hello: *hello}, conn); err != nil {
		u.log.Warn("successor refused", "pid", hello.PID, "error", err)
		refuse(err)
	}
}

// offer begins an upgrade with a successor that has come by itself, or goes on
// with one that waits for it. It takes the link unless it returns an error.
func (u *Upgrader) offer(a session.Arrival, conn *fdpass.Conn) error {
	cred, err := conn.Peer()
	if err != nil {
		return err
	}
	if a.Hello.Via == wire.ViaInherit {
		up := u.underWay()
		if up == nil || !up.inherit {
			return ErrNoUpgrade
		}
		// An inherited control socket can hold connections that the process before us
		// did not live to accept: of children of its own, and the one by which this
		// process has tried to join it.
		if !procs.Descends(cred.PID) {
			return fmt.Errorf("%w: pid %d is no child of this process", ErrPeerRefused, cred.PID)
		}
		up.peer.Store(int64(cred.PID))
		up.arrive(a)
		return nil
	}
	if err := u.awaitVisits(context.Background(), u.cfg.hang/2); err != nil {
		return err
	}
	mode := u.cfg.Mode
	if mode != Drain {
		mode = Takeover
	}
	up, err := u.begin(mode)
	if err != nil {
		return err
	}
	up.account.report.Successor.PID = cred.PID
	up.arrivals <- a
	u.log.Info("upgrade started by the successor", "pid", cred.PID)
	u.emit(Event{Kind: EventUpgradeStarted, Report: up.account.copy()})
	u.systemd.TakeoverStarted()
	u.wg.Go(func() { // ends with the upgrade
		u.converse(up, &session.Predecessor{Cancel: up.cancel})
	})
	return nil
}
