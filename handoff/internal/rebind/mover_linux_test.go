package rebind_test

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// line is a process that serves one listener, which it has inherited.
type line struct {
	t     *testing.T
	table *sockets.Table
	mover *rebind.Mover
	s     *sockets.Socket
	own   *rebind.Own
	moved chan rebind.Moved
}

// deferAccept keeps a connection half-open until its client sends, tcp(7).
func deferAccept(_, _ string, c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60) })
	return errors.Join(err, serr)
}

func newLine(t *testing.T) *line {
	t.Helper()
	l := &line{t: t, table: sockets.NewTable(), moved: make(chan rebind.Moved, 1)}
	l.mover = rebind.New(l.table, hclog.NewNullLogger(), func(m rebind.Moved) { l.moved <- m })
	lc := &net.ListenConfig{Control: deferAccept}
	k := sockets.Key{Kind: wire.KindListener, Network: "tcp4", Address: "127.0.0.1:0"}
	cfg := *lc
	cfg.Control = reuseport.Control(deferAccept)
	cfg.SetMultipathTCP(false)
	h, err := sockets.Bind(t.Context(), k, &cfg, func(error) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if l.s, err = sockets.New(k, h, nil, &sockets.Origin{}); err != nil {
		t.Fatal(err)
	}
	if l.own, err = rebind.Reserve(t.Context(), k, h, lc); err != nil {
		t.Fatal(err)
	}
	if err := l.table.Add(l.s, nil); err != nil {
		t.Fatal(err)
	}
	l.mover.Add(l.s, l.own)
	l.table.Open()
	go func() { // ends with the socket
		for c, err := l.s.Listener.Accept(nil); err == nil; c, err = l.s.Listener.Accept(nil) {
			_, _ = c.Write([]byte("x")) // the client reads it
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(l.mover.Close(), l.table.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *line) dial() net.Conn {
	l.t.Helper()
	c, err := net.Dial("tcp", l.s.Entry.Bound)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// mustServe ends the handshake of c, which is answered.
func (l *line) mustServe(c net.Conn) {
	l.t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // Read tells
	_, err := c.Write([]byte("x"))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if err != nil {
		l.t.Errorf("a client: %v", err)
	}
}

func (l *line) mustMove() {
	l.t.Helper()
	m := <-l.moved
	if m.Err != nil || m.LossPossible || m.Members != 1 {
		l.t.Errorf("moved: %+v, want one socket closed and no loss", m)
	}
	if l.s.Handle() != l.own.Handle || len(l.table.Leaving()) != 0 {
		l.t.Error("the socket is not the process's own")
	}
}

// TestMove ends a move that waits for a client and goes on with it: the sockets that
// are left are there to be passed on.
func TestMove(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	silent := l.dial()
	l.mover.Resume()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(l.table.Leaving()) == 0 {
		<-tick.C
	}
	l.mustServe(l.dial())
	l.mover.Suspend()
	if l.s.Handle() != l.own.Handle || len(l.table.Leaving()) != 1 || !l.table.Leaving()[0].Entry.Leaving {
		t.Error("want the own socket in use, and the other one to leave")
	}
	l.mustServe(l.dial())
	l.mover.Resume()
	l.mustServe(silent)
	l.mustMove()
}

// TestHolder has a process that may have duplicates of a socket: nothing moves before
// it has said that it has none, or has ended.
func TestHolder(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says := l.mover.Hold(nil, wire.KindListener, wire.KindPacket)
	l.mover.HoldProcess(cmd.Process.Pid, wire.KindListener)
	if again := l.mover.HoldProcess(cmd.Process.Pid, wire.KindListener); again == says {
		t.Error("two processes have one holder")
	}
	l.mover.Resume()
	said := func(holders []int) { t.Errorf("Released with %d holders, and one can't be watched", len(holders)) }
	if err := l.mover.Released(wire.KindListener, said); err == nil {
		t.Error("Released() = nil")
	}
	says.Release(wire.KindListener)
	n := 0
	if err := l.mover.Released(wire.KindListener, func(holders []int) { n = len(holders) }); err != nil || n != 1 {
		t.Errorf("Released(): %d holders, %v, want 1", n, err)
	}
	l.mustServe(l.dial())
	if len(l.table.Leaving()) != 0 || l.s.Handle() == l.own.Handle {
		t.Error("the socket moves while another process may have it")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	l.mustMove()
	if err := l.mover.Released(wire.KindListener, func(holders []int) { n = len(holders) }); err != nil || n != 0 {
		t.Errorf("Released(): %d holders, %v, want none", n, err)
	}
}

// TestCantListen has the own socket fail: the other one is served on.
func TestCantListen(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	broken := errors.New("broken")
	rebind.FailJoin(l.own, broken)
	h := l.s.Handle()
	l.mover.Resume()
	if m := <-l.moved; !errors.Is(m.Err, broken) || m.Address != l.s.Entry.Bound {
		t.Errorf("moved: %+v, want %v", m, broken)
	}
	if l.s.Handle() != h || len(l.table.Leaving()) != 0 {
		t.Error("the socket was replaced")
	}
	l.mustServe(l.dial())
	late := newLine(t)
	rebind.FailJoin(late.own, broken)
	late.mover.AddLate(late.s, late.own)
	errs := late.mover.JoinLate()
	if _, err := late.s.Listener.Accept(nil); len(errs) != 1 || !errors.Is(errs[0], broken) || !errors.Is(err, broken) {
		t.Errorf("JoinLate() = %v, and Accept: %v, want %v", errs, err, broken)
	}
}

// TestReserveForeign asks for the place of sockets that no own one could take.
func TestReserveForeign(t *testing.T) {
	t.Parallel()
	for what, lc := range map[string]*net.ListenConfig{
		"SO_REUSEPORT": {},
		"MPTCP":        {Control: reuseport.Control(nil)},
		"IPV6_V6ONLY": {Control: reuseport.Control(func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) })
		})},
	} {
		lc.SetMultipathTCP(what == "MPTCP")
		ln, err := lc.Listen(t.Context(), "tcp", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		k := sockets.Key{Kind: wire.KindListener, Network: "tcp", Address: ln.Addr().String()}
		o, err := rebind.Reserve(t.Context(), k, ln.(*net.TCPListener), &net.ListenConfig{})
		if !errors.Is(err, reuseport.ErrForeign) || !errors.Is(err, failure.Unsupported) || !strings.Contains(err.Error(), what) {
			t.Errorf("Reserve() = %v, %v, want ErrForeign and a word about %s", o, err, what)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
}
