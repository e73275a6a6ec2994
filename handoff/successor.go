package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// startSpawn starts the successor of modes Takeover and Drain.
func (u *Upgrader) startSpawn(up *upgrade, p *session.Predecessor) error {
	program := u.cfg.program
	if path := up.asked.Executable; path != "" {
		program.Path, program.Name = path, path
	}
	program.Env = slices.Concat(program.Env, up.asked.Env) // the last of a name counts
	c, conv, err := program.Start()
	if err != nil {
		return err
	}
	up.child, up.account.report.Successor.PID = c, c.PID
	u.wg.Go(func() { u.awaitHello(up, conv) }) // ends with Hello, or with the conversation
	p.Exited, p.Kill, p.Stderr = c.Exited(), c.Kill, c.Stderr.Descriptors
	return nil
}

// awaitHello waits for the Hello of the successor that has inherited the other end of c.
func (u *Upgrader) awaitHello(up *upgrade, c *net.UnixConn) {
	conn := fdpass.New(c)
	late := make(chan struct{})
	inTime := context.AfterFunc(up.over, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // the upgrade does not wait any more
		close(late)
	})
	link := session.NewWireLink(conn, u.cfg.hang)
	hello, err := up.expectHello(c, link)
	if !inTime() {
		<-late
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) { // its Hello may be on its way
			_ = link.Send(&wire.Refuse{Reason: failure.NoUpgrade, Text: "the upgrade is over"}, nil)
		} else {
			u.log.Debug("conversation", "error", err)
		}
		_ = link.Close()
		if !up.inherit {
			close(up.arrivals)
		}
		return // tableflip reports the end of its child, and another process may dial
	}
	up.arrive(session.Arrival{Link: link, Hello: *hello})
}

// expectHello waits for the first message on link, which is over c.
func (up *upgrade) expectHello(c *net.UnixConn, link session.Link) (*wire.Hello, error) {
	if up.inherit {
		if cred, err := fdx.SenderCred(c); err == nil { // an error: Recv has it as well
			up.peer.Store(int64(cred.PID))
		}
	}
	m, fds, err := link.Recv()
	_ = fdx.Close(fds...) // none belong here
	if err != nil {
		return nil, err
	}
	hello, ok := m.(*wire.Hello)
	if !ok {
		return nil, fmt.Errorf("%w: %T instead of a Hello", ErrProtocol, m)
	}
	return hello, nil
}

// arrive hands a successor to the upgrade, if that still waits for one.
func (up *upgrade) arrive(a session.Arrival) {
	select {
	case up.arrivals <- a:
	case <-up.over.Done(): // another one came first
		_ = a.Link.Close() // the end of the conversation is the answer
		return
	}
	select {
	case <-up.over.Done():
		up.dismiss()
	default:
	}
}

// dismiss closes the link of a successor that came too late.
func (up *upgrade) dismiss() {
	select {
	case a, ok := <-up.arrivals:
		if ok {
			_ = a.Link.Close() // the end of the conversation is the answer
		}
	default:
	}
}

// startInherit has tableflip start the successor.
func (u *Upgrader) startInherit(up *upgrade, p *session.Predecessor) error {
	if err := inherit.Check(u.cfg.program.Dir, u.cfg.program.Path, u.cfg.program.Check); err != nil {
		return err
	}
	// tableflip has one child at a time, and does not tell which it is.
	if !closedWithin(up.wanted, 2*u.cfg.hang, u.failures.Idle()) {
		return fmt.Errorf("%w: in mode inherit the last successor must have ended, and it still serves what it had accepted before it was rolled back: try again later, or end it", ErrInProgress)
	}
	wait := up.wanted
	if u.cfg.ReadyTimeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(wait, u.cfg.ReadyTimeout)
		defer cancel()
	}
	select {
	case <-u.engine.ParentEnded().Done():
	case <-wait.Done():
		return fmt.Errorf("%w: in mode inherit the process before this one must have ended: try again later, or end it", ErrInProgress)
	}
	conv, err := u.engine.AddConversation()
	if err != nil {
		return err
	}
	c, err := spawn.NewProcess(func() { u.killInherited(up) })
	if err != nil {
		_ = conv.Close() // no process has the other end
		return err
	}
	up.child, up.ready = c, make(chan struct{})
	u.wg.Go(func() { u.awaitHello(up, conv) }) // ends with Hello, or with the upgrade
	u.wg.Go(func() {                           // ends with the child, its Ready, or the engine's stop
		if err := u.engine.Start(); err != nil {
			c.Ended(err)
			return
		}
		close(up.ready)
	})
	p.Exited, p.Kill, p.Stderr = c.Exited(), c.Kill, c.Stderr.Descriptors
	p.EngineReady = up.ready
	return nil
}

// killInherited kills the child that tableflip has started, whose process ID tableflip
// does not return.
func (u *Upgrader) killInherited(up *upgrade) {
	pid := int(up.peer.Load())
	if pid == 0 {
		pid = inherit.Child()
	}
	if pid <= 0 {
		return // it has ended, or tableflip's own timeout kills it
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // has no effect on one that has ended
	}
}
