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
	"github.com/seed-11c92bf9/baton/internal/procs"
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
	hello, pid, err := expectHello(c, link)
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
	up.arrive(session.Arrival{Link: link, Hello: *hello, Ended: u.identify(up, pid)})
}

// expectHello waits for the first message on link, which is over c, and returns it with
// the process ID of its sender, as the kernel names it. The child need not be the sender:
// it may be a wrapper. An error of the credentials shows in the message as well.
func expectHello(c *net.UnixConn, link session.Link) (*wire.Hello, int, error) {
	cred, _ := fdx.SenderCred(c)
	m, fds, err := link.Recv()
	_ = fdx.Close(fds...) // none belong here
	if err != nil {
		return nil, 0, err
	}
	hello, ok := m.(*wire.Hello)
	if !ok {
		return nil, 0, fmt.Errorf("%w: %T instead of a Hello", ErrProtocol, m)
	}
	return hello, cred.PID, nil
}

// A process that is short of descriptors or memory tries again to watch its successor.
const (
	watchTries = 20
	watchPause = 10 * time.Millisecond
)

// identify notes which process has sent Hello, before its arrival. The channel that it
// returns is closed when that process has ended; it is nil where the kernel has no pidfds,
// or the process is in a PID namespace that this one does not see.
func (u *Upgrader) identify(up *upgrade, pid int) <-chan struct{} {
	up.speaker.Store(int64(pid))
	if pid <= 0 {
		return nil
	}
	p, err := procs.OpenPidfd(pid)
	for tries := 0; err != nil && failure.Passes(err) && tries < watchTries; tries++ {
		time.Sleep(watchPause) // the successor waits for Welcome
		p, err = procs.OpenPidfd(pid)
	}
	if err != nil {
		u.log.Debug("watch the successor", "pid", pid, "error", err)
		return nil
	}
	ended := make(chan struct{})
	if up.child != nil {
		up.child.SpokenFor(pid, p, ended)
	}
	u.wg.Go(func() { // ends with the process, or by unwatch
		if p.Wait(up.watched) == nil {
			close(ended)
		}
		_ = p.Close() // a copy
	})
	return ended
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
	for _, w := range u.obstacles() {
		if err := u.awaitStart(up, w); err != nil {
			return err
		}
	}
	conv, err := u.engine.AddConversation()
	if err != nil {
		return err
	}
	c, err := spawn.NewProcess(killInherited(inherit.Children()))
	if err != nil {
		_ = conv.Close() // no process has the other end
		return err
	}
	up.child, up.ready = c, make(chan struct{})
	u.wg.Go(func() { u.awaitHello(up, conv) }) // ends with Hello, or with the upgrade
	u.wg.Go(func() {                           // ends with the child, its Ready, or the engine's stop
		if err := u.engine.Start(u.cfg.program.Given); err != nil {
			c.Ended(err)
			return
		}
		close(up.ready)
	})
	p.Exited, p.Kill, p.Stderr = c.Exited(), c.Kill, c.Stderr.Descriptors
	p.EngineReady = up.ready
	return nil
}

// killInherited returns what kills the child that tableflip starts from now on, with its
// descendants: tableflip starts it in this process's group, and does not return its process
// ID. others are children that this process has started before its own New: they have
// tableflip's variable too.
func killInherited(others []int) func() {
	return func() {
		for _, pid := range inherit.Children() { // none: it has ended, or tableflip's own timeout kills it
			if !slices.Contains(others, pid) {
				procs.KillTree(pid)
			}
		}
	}
}
