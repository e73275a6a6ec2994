package handoff_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// staysOn checks for a while that the sockets that listen are these, and that each
// new connection is answered by gen.
func (s *service) staysOn(addr string, sockets []string, gen uint64) {
	s.tb.Helper()
	for range 100 {
		if got, err := ask("tcp", addr); err != nil || got != gen {
			s.tb.Fatalf("generation %d answers, %v, want %d", got, err, gen)
		}
	}
	if now := listeners(s.tb, addr); !slices.Equal(now, sockets) {
		s.tb.Errorf("%v listen, want %v", now, sockets)
	}
}

// TestMoveFamilies upgrades a service under load, with all kinds of addresses: no
// connection is lost in its moves.
func TestMoveFamilies(t *testing.T) {
	t.Parallel()
	for _, sockets := range [][]string{
		{"tcp4 127.0.0.1:0", "udp4 127.0.0.1:0"},
		{"tcp6 [::1]:0", "udp6 [::1]:0"},
		{"tcp [::]:0", "udp [::]:0"}, // dual stack
	} {
		t.Run(sockets[0], func(t *testing.T) {
			t.Parallel()
			testenv.Need(t, "ipv6")
			s := newService(t, settings{Mode: handoff.Drain, Sockets: sockets, Probation: 10 * time.Millisecond}).start()
			l := newLoad(t, s.set.Dir, s.wait("addrs").Addrs)
			for gen := range uint64(testenv.Times(1, 4)) {
				l.run(20)
				s.upgrade()
				s.moved(gen+2, 2)
			}
			l.run(20)
			l.stop()
			s.stop()
		})
	}
}

// TestMoveOfSilentClients upgrades a service again and again whose clients do not end
// their handshakes: its move does not end, and holds up neither the next upgrade, nor
// the move of a neighbour beyond its turn. Once the clients speak they are served, and
// all old sockets leave.
func TestMoveOfSilentClients(t *testing.T) {
	t.Parallel()
	addr := "127.66.8.21:" + freePort(t)
	set := settings{Mode: handoff.Drain, Sockets: []string{"tcp " + addr}, Probation: 10 * time.Millisecond, Defer: true}
	s := newService(t, set).start()
	s.wait("addrs")
	silent := dialMany(t, addr, 20)
	s.upgrade()
	eventually(t, "the old socket and its successor's listen", func() bool { return len(listeners(t, addr)) == 2 })
	s.upgrade()
	eventually(t, "sockets of three generations listen", func() bool { return len(listeners(t, addr)) == 3 })

	neighbour := newService(t, set).start()
	neighbour.wait("addrs")
	neighbour.upgrade()
	neighbour.moved(2, 1)

	answered(t, "half-open", silent)
	s.moved(3, 1)
	eventually(t, "each service has one socket", func() bool { return len(listeners(t, addr)) == 2 })
	for _, c := range silent {
		_ = c.Close() // answered
	}
	s.stop()
	neighbour.stop()
	closeLoses(t)
}

// TestMoveToInherit changes the mode to Inherit while an old socket still leaves, which
// tableflip does not pass on: the next upgrade waits until its clients have spoken.
func TestMoveToInherit(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: 10 * time.Millisecond, Defer: true}).start()
	addr := s.wait("addrs").Addrs[drainSocket]
	silent := dialMany(t, addr, 20)
	s.upgrade()
	eventually(t, "the old socket and its successor's listen", func() bool { return len(listeners(t, addr)) == 2 })
	mode := handoff.Inherit
	s.plan(plan{Mode: &mode})
	s.upgrade()
	s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.Generation == 3 })
	s.plan(plan{Mode: &mode})
	s.signal(syscall.SIGUSR2)
	eventually(t, "the upgrade waits, or has committed", func() bool {
		waits := func(m message) bool {
			return m.Kind == "waiting" && strings.Contains(m.Err, "a client has not ended its handshake on tcp "+addr)
		}
		return slices.ContainsFunc(s.received(), waits) || s.committed(4)
	})
	answered(t, "half-open", silent)
	eventually(t, "the upgrade has committed", func() bool { return s.committed(4) })
	for _, c := range silent {
		_ = c.Close() // answered
	}
	s.stop()
}

// committed reports whether a generation owns the sockets.
func (s *service) committed(gen uint64) bool {
	return slices.ContainsFunc(s.received(), func(m message) bool { return m.Kind == "owner" && m.Generation == gen })
}

// closeLoses is the control of tests in which a move loses nothing: a close of the old
// socket, without a drain, loses handshakes that are not over.
func closeLoses(t *testing.T) {
	t.Helper()
	lc := net.ListenConfig{Control: deferAccept(reuseport.Control(nil))}
	lc.SetMultipathTCP(false)
	old, err := lc.Listen(t.Context(), "tcp4", "127.66.8.22:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := dialMany(t, old.Addr().String(), 20)
	own, err := lc.Listen(t.Context(), "tcp4", old.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	go func() { // ends with own
		for c, err := own.Accept(); err == nil; c, err = own.Accept() {
			go answerOnce(c)
		}
	}()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, c := range silent {
		if _, err := askOver(c, "x"); err != nil {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no connection is lost by a close: the test shows nothing")
	}
	t.Logf("a close has lost %d of %d half-open connections", lost, len(silent))
}

// TestMoveInstances has two of three services on one address move at once, again and
// again, under load.
func TestMoveInstances(t *testing.T) {
	t.Parallel()
	addr := "127.66.8.25:" + freePort(t)
	var all []*service
	for range 3 {
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp " + addr}, Probation: 10 * time.Millisecond, Greet: true}).start()
		all = append(all, s)
	}
	g := newGreeted(t, addr, 8)
	for round := range testenv.Times(2, 6) {
		g.run(100)
		two := []*service{all[round%3], all[(round+1)%3]}
		for _, s := range two {
			s.signal(syscall.SIGUSR2)
		}
		for _, s := range two {
			s.wait("moved")
		}
	}
	g.run(100)
	g.stop()
	for _, s := range all {
		for _, m := range s.received() {
			if m.Kind == "moved" && m.Err != "" {
				t.Errorf("moved: %s: %s", m.Address, m.Err)
			}
		}
		s.stop()
	}
	t.Logf("%d connections, %d failed", g.asked.Load(), g.lost.Load()+g.accepted.Load())
	if n := g.lost.Load() + g.accepted.Load(); n > 0 {
		t.Errorf("%d connections are lost", n)
	}
}

// TestMovePredecessorStopped has a successor take over from a predecessor that is
// stopped, and has all sockets: nothing listens and nothing is hidden before the
// predecessor has yielded, or has ended.
func TestMovePredecessorStopped(t *testing.T) {
	t.Parallel()
	for how, sig := range map[string]syscall.Signal{"continues": syscall.SIGCONT, "is killed": syscall.SIGKILL} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Hang: soon}).start()
			addr, pid := s.wait("addrs").Addrs[drainSocket], s.pid()
			old := listeners(t, addr)
			s.signal(syscall.SIGUSR2)
			s.wait("paused")
			stopProcess(t, pid)
			s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != pid })
			s.staysOn(addr, old, 2)
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			s.moved(2, 1)
			s.drained(addr, 1, old)
			s.staysOn(addr, listeners(t, addr), 2)
			s.stop()
		})
	}
}

// TestMoveAfterRollback stops a successor in its probation, rolls it back, and has
// another one commit: that serves the shared sockets on for as long as the stopped one
// has duplicates.
func TestMoveAfterRollback(t *testing.T) {
	t.Parallel()
	for how, sig := range map[string]syscall.Signal{"continues": syscall.SIGCONT, "is killed": syscall.SIGKILL} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}, Probation: 10 * time.Millisecond, Hang: soon}).start()
			addr := s.wait("addrs").Addrs[drainSocket]
			old := listeners(t, addr)
			s.plan(plan{At: "probation", How: "hold"})
			o := s.outsider(handoff.Drain)
			o.wait("waits")
			stopProcess(t, o.cmd.Process.Pid)
			s.signal(syscall.SIGUSR1) // roll back
			s.wait("upgrade-failed")
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
			s.staysOn(addr, old, 2)
			if err := syscall.Kill(o.cmd.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
			s.let()
			s.moved(2, 2)
			s.drained(addr, 1, old)
			s.staysOn(addr, listeners(t, addr), 2)
			s.stop()
		})
	}
}

// TestMoveKilled kills a successor in its move, at any moment. That loses what the kill
// of a server loses that is not upgraded: what it had accepted and what waited in its
// sockets, of which it has two now. A neighbour serves and moves as ever, by steering,
// and loses nothing.
func TestMoveKilled(t *testing.T) {
	t.Parallel()
	sockets := []string{"tcp 127.66.8.23:" + freePort(t), "udp 127.66.8.23:" + freePort(t)}
	set := settings{Mode: handoff.Drain, Sockets: sockets, Probation: time.Millisecond, Greet: true}
	neighbour := newService(t, set).start()
	neighbour.wait("addrs")
	const clients = 8
	g := newGreeted(t, strings.TrimPrefix(sockets[0], "tcp "), clients)
	failed := func() int64 { return g.accepted.Load() + g.lost.Load() }
	var plain, moving int64 // that the kills have lost
	rounds := testenv.Times(2, 6)
	for round := range rounds {
		for _, upgraded := range []bool{false, true} {
			s := newService(t, set).start()
			s.wait("addrs")
			victim, lost := s.pid(), &plain
			if upgraded {
				s.upgrade()
				victim, lost = s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.Generation == 2 }).PID, &moving
			}
			before := failed()
			<-time.After(rand.N(30 * time.Millisecond)) // any moment is right
			_ = syscall.Kill(victim, syscall.SIGKILL)   // it lives: nothing has ended it
			s.gone(victim)
			g.run(4 * clients) // those that have failed are counted
			*lost += failed() - before
		}
		before := failed()
		neighbour.upgrade()
		neighbour.moved(uint64(round+2), 2)
		if n := failed() - before; n > 0 {
			t.Errorf("%d connections are lost by the neighbour's upgrade", n)
		}
	}
	g.stop()
	t.Logf("%d connections; %d kills have lost %d, %d kills of a process in its move %d", g.asked.Load(), rounds, plain, rounds, moving)
	if plain == 0 {
		t.Error("a kill has lost nothing: the test shows nothing")
	}
	if moving > 2*plain+clients {
		t.Errorf("kills in a move have lost %d connections, kills without one %d", moving, plain)
	}
	neighbour.stop()
}

// TestMoveCantBind has a successor that can't bind its own socket after the commit: it
// serves the predecessor's on, and event, report and log say so.
func TestMoveCantBind(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	moved := make(chan handoff.Event, 1)
	cfg := handoff.Config{
		Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"), Probation: -1,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
		// The address is one of TEST-NET-1 (RFC 5737), which no interface has.
		ListenConfig: &net.ListenConfig{Control: setsockopt(unix.IPPROTO_IP, unix.IP_FREEBIND, 1)},
	}
	open := func(address string) (*handoff.Upgrader, *handoff.PacketConn) {
		up, err := handoff.New(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = up.Close() })
		pc, err := up.ListenPacket(t.Context(), "udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Ready(); err != nil {
			t.Fatal(err)
		}
		return up, pc
	}
	first, old := open("192.0.2.8:0")
	inode := inodeOf(t, old)
	cfg.ListenConfig = nil
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	cfg.OnEvent = func(e handoff.Event) {
		if e.Kind == handoff.EventMoved {
			moved <- e
		}
	}
	second, pc := open(old.LocalAddr().String())
	<-first.Done()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	e := <-moved
	if !errors.Is(e.Err, unix.EADDRNOTAVAIL) || e.Address != "udp4 "+old.LocalAddr().String() {
		t.Errorf("event: %+v, want EADDRNOTAVAIL", e)
	}
	if now := inodeOf(t, pc); now != inode {
		t.Errorf("the successor has socket %d, want the predecessor's: %d", now, inode)
	}
	if err := pc.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
	if _, _, err := pc.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadFrom() = %v, want a timeout", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "this process serves those of the predecessor") {
		t.Errorf("log: %s", log.String())
	}
}

// setsockopt returns a Control hook that sets an option.
func setsockopt(level, opt, value int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			serr = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, opt, value))
		})
		return errors.Join(err, serr)
	}
}

func inodeOf(tb testing.TB, c syscall.Conn) uint64 {
	tb.Helper()
	var st unix.Stat_t
	if err := fdx.Borrow(c, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		tb.Fatal(err)
	}
	return st.Ino
}

// TestMoveForeign has successors that would not be in the group of the predecessor:
// they fail before Ready, and say why.
func TestMoveForeign(t *testing.T) {
	t.Parallel()
	t.Run("namespace", func(t *testing.T) {
		t.Parallel()
		testenv.Need(t, "netns")
		s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs[drainSocket]
		o := newService(t, s.set)
		o.netns = netlab.NewNamespace(t)
		cmd := o.command()
		cmd.SysProcAttr = nil // whose Pdeathsig would come with the end of the thread that is in the namespace
		o.startCommand(cmd)
		if m := o.wait("listen"); !strings.Contains(m.Err, "network namespace") || !slices.Contains(m.Is, "ErrUnsupported") {
			t.Errorf("Listen() = %s %v, want ErrUnsupported and a word about the namespace", m.Err, m.Is)
		}
		if gen, err := ask("tcp", addr); err != nil || gen != 1 {
			t.Errorf("after that: generation %d, %v, want 1", gen, err)
		}
		s.stop()
	})
	t.Run("device", func(t *testing.T) {
		t.Parallel()
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		cfg := handoff.Config{
			Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"),
			UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
		}
		first, ln, pc := openPair(t, &cfg, "127.0.0.1:0", "127.0.0.1:0")
		if err := first.Ready(); err != nil {
			t.Fatal(err)
		}
		cfg.ListenConfig = &net.ListenConfig{Control: setsockopt(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, lo.Index)}
		second, err := handoff.New(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		_, tcp := second.Listen(t.Context(), "tcp4", ln.Addr().String())
		_, udp := second.ListenPacket(t.Context(), "udp4", pc.LocalAddr().String())
		for _, err := range []error{tcp, udp} {
			if !errors.Is(err, reuseport.ErrForeign) || !strings.Contains(err.Error(), "interface") {
				t.Errorf("Listen() = %v, want ErrForeign and a word about the interface", err)
			}
		}
	})
}
