package handoff_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// rawPeer is a peer of a control socket that need not keep to anything.
type rawPeer struct {
	tb   testing.TB
	uc   *net.UnixConn
	conn *fdpass.Conn
}

func dialRaw(tb testing.TB, path string) *rawPeer {
	tb.Helper()
	uc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	return newRawPeer(tb, uc)
}

func newRawPeer(tb testing.TB, uc *net.UnixConn) *rawPeer {
	tb.Helper()
	p := &rawPeer{tb: tb, uc: uc, conn: fdpass.New(uc)}
	tb.Cleanup(p.close)
	if err := uc.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return p
}

// listenRaw returns a listener, and its path, for who plays a predecessor.
func listenRaw(tb testing.TB) (*net.UnixListener, string) {
	tb.Helper()
	path := filepath.Join(testenv.ShortDir(tb), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ln.Close() })
	if err := ln.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return ln, path
}

// controlOf returns the path of a service's control socket.
func controlOf(s *service) string { return filepath.Join(s.set.Dir, "ctl", "s") }

// send sends a message. The peer may be gone before it has read all of it.
func (p *rawPeer) send(m wire.Message, fds ...int) {
	p.tb.Helper()
	if err := p.conn.Send(uint16(m.Type()), wire.Append(nil, m), fds); err != nil && !errors.Is(err, syscall.EPIPE) {
		p.tb.Fatal(err)
	}
}

// write sends bytes, and descriptors with the first of them.
func (p *rawPeer) write(b []byte, fds ...int) {
	p.tb.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := p.uc.WriteMsgUnix(b, rights, nil); err != nil && !errors.Is(err, syscall.EPIPE) {
		p.tb.Fatal(err)
	}
}

func (p *rawPeer) close() { _ = p.conn.Close() }

// recv returns the next message.
func (p *rawPeer) recv() (wire.Message, error) {
	f, err := p.conn.Recv()
	if err != nil {
		return nil, err
	}
	_ = fdx.Close(f.FDs...)
	return wire.Decode(wire.Type(f.Type), f.Payload)
}

// rest reads until the other side closes, and returns the reason of a refusal.
func (p *rawPeer) rest() failure.Reason {
	p.tb.Helper()
	var reason failure.Reason
	for {
		m, err := p.recv()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.tb.Fatalf("the connection is open after %v", patience)
		}
		if err != nil {
			return reason
		}
		switch m := m.(type) {
		case *wire.Refuse:
			reason = m.Reason
		case *wire.Rollback:
			p.close() // it waits for an answer, for as long as it waits for any
		}
	}
}

// header is the header of a frame, see fdpass.
func header(size uint32, typ wire.Type, fds uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	return binary.BigEndian.AppendUint16(b, fds)
}

// nulls returns n descriptors of the null device.
func nulls(tb testing.TB, n int) []int {
	tb.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	fd, err := fdx.Number(f)
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Repeat([]int{fd}, n)
}

func hello(change func(*wire.Hello)) *wire.Hello {
	h := &wire.Hello{MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, PID: int64(os.Getpid()), Build: "raw"}
	if change != nil {
		change(h)
	}
	return h
}

// TestHostilePeer has peers break every rule at the control socket of a service.
// Each gets an end, and costs the service a connection and nothing more.
func TestHostilePeer(t *testing.T) {
	cases := []struct {
		name   string
		act    func(*testing.T, *rawPeer)
		reason failure.Reason // of the refusal; None where a close is answer enough
		failed string         // the sentinel of the upgrade that it began
	}{
		{name: "garbage", act: func(_ *testing.T, p *rawPeer) {
			b := make([]byte, 64<<10)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
			p.write(b)
		}},
		{name: "nothing", act: func(t *testing.T, p *rawPeer) {
			if err := p.uc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "half a header", act: func(t *testing.T, p *rawPeer) {
			p.write(header(0, wire.TypeHello, 0)[:5])
			if err := p.uc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "length beyond the limit", act: func(_ *testing.T, p *rawPeer) {
			p.write(header(fdpass.MaxPayload+1, wire.TypeHello, 0))
		}},
		{name: "254 descriptors announced", act: func(t *testing.T, p *rawPeer) {
			p.write(header(0, wire.TypeHello, 254), nulls(t, 253)...)
		}},
		{name: "descriptors that nobody announced", act: func(t *testing.T, p *rawPeer) {
			p.write(header(0, wire.TypeHello, 0), nulls(t, 253)...)
		}},
		{name: "fewer descriptors than announced", act: func(t *testing.T, p *rawPeer) {
			p.write(append(header(1, wire.TypeHello, 3), 0), nulls(t, 1)...)
		}},
		{name: "descriptors within a payload", act: func(t *testing.T, p *rawPeer) {
			p.write(header(100, wire.TypeHello, 0))
			p.write([]byte{1}, nulls(t, 253)...)
		}},
		{name: "malformed Hello", act: func(_ *testing.T, p *rawPeer) {
			p.write(append(header(3, wire.TypeHello, 0), 1, 200, 1))
		}},
		{name: "no Hello", act: func(_ *testing.T, p *rawPeer) { p.send(&wire.Ready{}) }, reason: failure.Unsupported},
		{name: "inherited by nobody", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.Via = wire.ViaInherit }))
		}, reason: failure.NoUpgrade},
		{name: "too new", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = wire.MaxVersion+1, wire.MaxVersion+9 }))
		}, reason: failure.Version, failed: "ErrVersion"},
		{name: "too old", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 0, wire.MinVersion-1 }))
		}, reason: failure.Version, failed: "ErrVersion"},
		{name: "versions upside down", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = wire.MaxVersion+1, wire.MinVersion }))
		}, reason: failure.Version, failed: "ErrVersion"},
		{name: "Hello and gone", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.close()
		}, failed: "ErrSuccessorDied"},
		{name: "Hello with descriptors, and gone", act: func(t *testing.T, p *rawPeer) {
			p.send(hello(nil), nulls(t, 253)...)
			if m, err := p.recv(); err != nil || m.Type() != wire.TypeWelcome {
				t.Errorf("answer to a Hello: %T, %v, want a Welcome", m, err)
			}
			p.close()
		}, failed: "ErrSuccessorDied"},
		{name: "Hello and garbage", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.write(header(1<<30, 7, 9))
		}, failed: "ErrProtocol"},
		{name: "Hello twice", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.send(hello(nil))
		}, failed: "ErrProtocol"},
		{name: "Verified before the sockets", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.send(&wire.Verified{})
		}, failed: "ErrProtocol"},
		{name: "Abort", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.send(&wire.Abort{Text: strings.Repeat("x", 2*wire.MaxText)})
		}, failed: "ErrAborted"},
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		mustAnswer(t, addr, 1)
		pid := s.pid()
		before := openFiles(t, pid)
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				p := dialRaw(t, controlOf(s))
				c.act(t, p)
				if reason := p.rest(); reason != c.reason && (c.reason != failure.None || reason != failure.Closed) {
					t.Errorf("the refusal: %v, want %v", reason, c.reason)
				}
				if c.failed != "" {
					if m := s.wait("upgrade-failed"); !slices.Equal(m.Is, []string{c.failed}) {
						t.Errorf("upgrade: %v %s, want %s", m.Is, m.Err, c.failed)
					}
				}
				p.close()
				mustAnswer(t, addr, 1)
			})
		}
		eventually(t, "the descriptors of the service are as before", func() bool { return len(openFiles(t, pid)) <= len(before) })
		s.upgrade()
		mustAnswer(t, addr, 2)
		s.stop()
	})
}

// mustAnswer asks a question and wants generation want to answer.
func mustAnswer(tb testing.TB, addr string, want uint64) {
	tb.Helper()
	if gen, err := ask("tcp", addr); err != nil || gen != want {
		tb.Errorf("%s is answered by generation %d, %v, want %d", addr, gen, err, want)
	}
}

// TestEndlessPeer has peers that never come to an end.
func TestEndlessPeer(t *testing.T) {
	t.Parallel()
	// as much as the peer takes before it closes.
	flood := func(p *rawPeer, b []byte) {
		for {
			if _, err := p.uc.Write(b); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					p.tb.Errorf("the service reads on after %v", patience)
				}
				return
			}
		}
	}
	for name, act := range map[string]func(*rawPeer){
		"bytes":    func(p *rawPeer) { flood(p, make([]byte, 1<<20)) },
		"payload":  func(p *rawPeer) { p.write(header(fdpass.MaxPayload, wire.TypeHello, 0)); flood(p, make([]byte, 1<<10)) },
		"unknown":  func(p *rawPeer) { flood(p, append(header(1<<10, 60000, 0), make([]byte, 1<<10)...)) },
		"Hello...": func(p *rawPeer) { p.send(hello(nil)); flood(p, append(header(8, 60000, 0), make([]byte, 8)...)) },
		"Alive...": func(p *rawPeer) { p.send(hello(nil)); flood(p, header(0, wire.TypeAlive, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: soon}).start()
			addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			mustAnswer(t, addr, 1)
			before := peakMemory(t, s.pid())
			p := dialRaw(t, controlOf(s))
			act(p)
			p.rest()
			if grown := peakMemory(t, s.pid()) - before; grown > 64<<20 {
				t.Errorf("the service has taken %d MiB for it", grown>>20)
			}
			mustAnswer(t, addr, 1)
			// Its upgrade, if it has begun one, is over or ends now.
			eventually(t, "an upgrade can begin", func() bool {
				s.signal(syscall.SIGUSR2)
				m := s.waitFor("the end of an upgrade", func(m message) bool {
					return m.Kind == "committed" || m.Kind == "upgrade-failed"
				})
				return m.Kind == "committed"
			})
			mustAnswer(t, addr, 2)
			s.stop()
		})
	}
}

// peakMemory is VmHWM of proc_pid_status(5), in bytes.
func peakMemory(tb testing.TB, pid int) int {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "VmHWM:")
	if !ok {
		tb.Fatalf("no VmHWM in the status of %d", pid)
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		tb.Fatal(err)
	}
	return n << 10
}

// TestSilentPeers has as many peers say nothing as are served at once, and more,
// while the service is upgraded.
func TestSilentPeers(t *testing.T) {
	for _, n := range []int{1, 64, 200} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			eachMode(t, func(t *testing.T, mode handoff.Mode) {
				s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
				addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
				for range n {
					dialRaw(t, controlOf(s))
				}
				s.upgrade()
				mustAnswer(t, addr, 2)
				s.stop()
			})
		})
	}
}

// TestSilentSuccessor has a peer say Hello and nothing more: the upgrade that it
// began ends with a timeout, and the next one may begin.
func TestSilentSuccessor(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: soon}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	p := dialRaw(t, controlOf(s))
	p.send(hello(nil))
	s.wait("upgrade-started")
	p2 := dialRaw(t, controlOf(s))
	p2.send(hello(nil))
	if reason := p2.rest(); reason != failure.InProgress {
		t.Errorf("the refusal meanwhile: %v, want %v", reason, failure.InProgress)
	}
	mustAnswer(t, addr, 1)
	if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, "ErrTimeout") {
		t.Errorf("upgrade: %v %s, want ErrTimeout", m.Is, m.Err)
	}
	p.rest()
	s.upgrade()
	mustAnswer(t, addr, 2)
	s.stop()
}

// TestSilentWarming has a peer acknowledge what it was not sent, and never come
// to an end of its warming up.
func TestSilentWarming(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Ready: 500 * time.Millisecond, Hang: soon}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	p := dialRaw(t, controlOf(s))
	p.send(hello(nil))
	p.send(&wire.Ack{Seq: 77, Taken: 200})
	if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, "ErrTimeout") && !slices.Contains(m.Is, "ErrProtocol") {
		t.Errorf("upgrade: %v %s, want ErrTimeout or ErrProtocol", m.Is, m.Err)
	}
	p.rest()
	mustAnswer(t, addr, 1)
	s.stop()
}

// TestNoHeir has a process that is no child of the service say that it has
// inherited the sockets, while the service waits for a child that has. It is
// refused, and not killed; the child takes over.
func TestNoHeir(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Inherit, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	s.plan(plan{At: "start", How: "wait"})
	s.signal(syscall.SIGUSR2)
	s.wait("waits")
	p := dialRaw(t, controlOf(s))
	p.send(hello(func(h *wire.Hello) { h.Via = wire.ViaInherit }))
	if reason := p.rest(); reason != failure.PeerRefused {
		t.Errorf("the refusal: %v, want %v", reason, failure.PeerRefused)
	}
	s.let()
	if m := s.waitFor("the end", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" }); m.Kind != "committed" {
		t.Errorf("%s: %s", m.Kind, m.Err)
	}
	mustAnswer(t, addr, 2)
	s.stop()
}

// TestTwoSuccessors starts a second successor while the first one warms up.
func TestTwoSuccessors(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	s.plan(plan{At: "joined", How: "wait"})
	first := s.outsider(handoff.Takeover)
	first.wait("waits")
	second := s.outsider(handoff.Takeover)
	if m := second.wait("new"); !slices.Equal(m.Is, []string{"ErrInProgress"}) {
		t.Errorf("the second successor: %v %s, want ErrInProgress", m.Is, m.Err)
	}
	// Nor does a signal begin one.
	s.signal(syscall.SIGUSR2)
	eventually(t, "the signal is answered", func() bool { return strings.Contains(s.log(), "an upgrade is in progress") })
	s.let()
	first.wait("owner")
	mustAnswer(t, addr, 2)
	first.stop()
}

// TestTwoSuccessorsAtOnce starts several successors at the same moment: one
// takes over, each of the others is told that it is in progress, or takes over
// from the one before.
func TestTwoSuccessorsAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Linger: time.Second}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
	owners := uint64(1)
	for _, o := range []*service{s.outsider(handoff.Takeover), s.outsider(handoff.Takeover), s.outsider(handoff.Takeover)} {
		m := o.waitFor("owner or new", func(m message) bool { return m.Kind == "owner" || m.Kind == "new" })
		switch {
		case m.Kind == "owner":
			owners++
		case !slices.ContainsFunc(m.Is, busy):
			t.Errorf("a successor: %v %s, want that the predecessor is busy", m.Is, m.Err)
		}
	}
	l.run(20)
	l.stop()
	if owners < 2 {
		t.Error("no successor has taken over")
	}
	mustAnswer(t, addr, owners)
}

// busy reports whether a sentinel says that the predecessor can't begin an upgrade.
func busy(sentinel string) bool {
	return slices.Contains([]string{"ErrInProgress", "ErrNotReady", "ErrInProbation"}, sentinel)
}

// TestFirstAtOnce starts several first processes of one service at the same
// moment: one becomes the first, the others join it or are told why not.
func TestFirstAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"unix @baton-test-first"}})
	s.set.Sockets[0] += filepath.Base(s.set.Dir)
	all := []*service{s.outsider(handoff.Takeover), s.outsider(handoff.Takeover), s.outsider(handoff.Takeover)}
	var generations []uint64
	for _, o := range all {
		m := o.waitFor("owner or new", func(m message) bool { return m.Kind == "owner" || m.Kind == "new" })
		switch {
		case m.Kind == "owner":
			generations = append(generations, m.Generation)
		case !slices.ContainsFunc(m.Is, busy):
			t.Errorf("a process: %v %s, want that the predecessor is busy", m.Is, m.Err)
		}
	}
	slices.Sort(generations)
	for i, g := range generations {
		if g != uint64(i+1) {
			t.Errorf("generations that came to own: %v, want 1 and up, each once", generations)
		}
	}
	_, path, _ := strings.Cut(s.set.Sockets[0], " ")
	if gen, err := ask("unix", path); err != nil || gen != uint64(len(generations)) {
		t.Errorf("answered by generation %d, %v, want %d", gen, err, len(generations))
	}
}

// join calls New in this process, in mode Takeover, and closes what comes.
func join(path string) error {
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: path, ReadyTimeout: patience,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	})
	if err != nil {
		return err
	}
	return up.Close()
}

// TestControlMode watches a control socket come into being, without a umask: it
// and its folder have their modes from the first moment, so that nobody ever
// changes one.
func TestControlMode(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover})
	ctl := filepath.Dir(controlOf(s))
	// The folder is made by one process, and the socket by the next one, in a
	// folder that is there to be watched.
	for _, watched := range []string{s.set.Dir, ctl} {
		w := newWatch(t, watched)
		s = newService(t, s.set)
		s.startCommand(s.varied(variation{NoUmask: true}))
		s.wait("owner")
		for path, want := range map[string]os.FileMode{
			ctl: os.ModeDir | 0o700, controlOf(s): os.ModeSocket | 0o600, controlOf(s) + ".lock": 0o600,
		} {
			if fi, err := os.Lstat(path); err != nil || fi.Mode() != want {
				t.Errorf("%s: mode %v, %v, want %v", path, fi.Mode(), err, want)
			}
		}
		s.stop()
		created := false
		for _, e := range w.events(filepath.Join(watched, "end")) {
			created = created || e.Mask&unix.IN_CREATE != 0
			if e.Mask&unix.IN_ATTRIB != 0 {
				t.Errorf("the mode of something in %s was changed: event %#x", watched, e.Mask)
			}
		}
		if !created {
			t.Errorf("the watch has seen nothing of %s", watched)
		}
	}
}

// watch is an inotify(7) watch of a folder.
type watch struct {
	tb testing.TB
	f  *os.File
}

func newWatch(tb testing.TB, dir string) *watch {
	tb.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		tb.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	tb.Cleanup(func() { _ = f.Close() })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_ATTRIB); err != nil {
		tb.Fatal(err)
	}
	return &watch{tb, f}
}

// events returns what has happened up to the creation of end, which it does.
// The PID file, which is made elsewhere and given its mode there, is left out.
func (w *watch) events(end string) []unix.InotifyEvent {
	w.tb.Helper()
	if err := os.Mkdir(end, 0o700); err != nil {
		w.tb.Fatal(err)
	}
	if err := w.f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		w.tb.Fatal(err)
	}
	var all []unix.InotifyEvent
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			w.tb.Fatal(err)
		}
		for b := buf[:n]; len(b) > 0; {
			e := unix.InotifyEvent{
				Mask: binary.NativeEndian.Uint32(b[4:]), Len: binary.NativeEndian.Uint32(b[12:]),
			}
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+e.Len]), "\x00")
			b = b[unix.SizeofInotifyEvent+e.Len:]
			if name == filepath.Base(end) {
				return all
			}
			if !strings.HasPrefix(name, ".pid") && name != "pid" && e.Mask&unix.IN_IGNORED == 0 {
				all = append(all, e)
			}
		}
	}
}

// TestStaleControl starts a service whose last process was killed: the path of
// its control socket is left.
func TestStaleControl(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0", "unix "}})
		s.set.Sockets[1] += filepath.Join(s.set.Dir, "u")
		s.start()
		s.line.Kill()
		s.gone(s.pidsHeard()...)
		if _, err := os.Lstat(controlOf(s)); err != nil {
			t.Fatalf("control socket of a killed process: %v, want one", err)
		}
		next := newService(t, s.set).start()
		mustAnswer(t, next.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], 1)
		if gen, err := ask("unix", filepath.Join(s.set.Dir, "u")); err != nil || gen != 1 {
			t.Errorf("unix socket: generation %d, %v, want 1", gen, err)
		}
		next.stop()
	})
}

// TestControlInUse starts a service in mode Inherit where another one has the
// control socket.
func TestControlInUse(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	o := s.outsider(handoff.Inherit)
	if m := o.wait("new"); !strings.Contains(m.Err, "choose another Name, or mode Takeover") {
		t.Errorf("New: %s, want what to do", m.Err)
	}
	mustAnswer(t, addr, 1)
	s.stop()
}

// nobody is the uid that belongs to nobody, and somebody that of somebody else.
const nobody, somebody = 65534, 65533

// as has cmd run path as another user, who can reach the service's folder all the
// same (CAP_DAC_OVERRIDE, capabilities(7)): what keeps him out is not the mode.
func as(cmd *exec.Cmd, path string, uid uint32) *exec.Cmd {
	const capDACOverride = 1
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	cmd.SysProcAttr.AmbientCaps = []uintptr{capDACOverride}
	cmd.Path = path
	return cmd
}

// publicBinary returns a path of this binary that anybody can run.
func publicBinary(tb testing.TB) string {
	tb.Helper()
	dir := testenv.ShortDir(tb)
	if err := os.Chmod(dir, 0o711); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "public")
	copyBinary(tb, path)
	return path
}

// TestUsers has successors of other users come to a service.
func TestUsers(t *testing.T) {
	testenv.Need(t, "root")
	t.Parallel()
	path := publicBinary(t)
	start := func(t *testing.T, uid uint32, allow ...int) (*service, string) {
		t.Helper()
		s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
		s.startCommand(as(s.varied(variation{Allow: allow}), path, uid))
		s.wait("owner")
		return s, s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	}
	come := func(s *service, uid uint32, allow ...int) *service {
		// His own folder: it is no reason to refuse anybody.
		if err := os.Chown(filepath.Dir(controlOf(s)), int(uid), int(uid)); err != nil {
			s.tb.Fatal(err)
		}
		o := newService(s.tb, s.set)
		o.startCommand(as(o.varied(variation{Allow: allow}), path, uid))
		return o
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, 0)
		o := come(s, nobody)
		if m := o.wait("new"); !slices.Equal(m.Is, []string{"ErrPeerRefused"}) || !regexp.MustCompile(`: pid \d+ has uid 65534, pid \d+ has uid 0: run both as one user, or set Config.Allow`).MatchString(m.Err) {
			t.Errorf("a stranger's New: %v %s, want ErrPeerRefused", m.Is, m.Err)
		}
		var out strings.Builder
		cmd := as(testmain.Command(t, "stranger", controlOf(s)), path, nobody)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil || out.String() != fmt.Sprintf("*wire.Refuse %d", failure.PeerRefused) {
			t.Errorf("a stranger hears %q, %v, want a refusal: %v", &out, err, failure.PeerRefused)
		}
		mustAnswer(t, addr, 1)
		s.upgrade()
		mustAnswer(t, addr, 2)
		s.stop()
	})
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, 0, nobody)
		o := come(s, nobody)
		o.wait("owner")
		mustAnswer(t, addr, 2)
		s.wait("exit")
		o.stop()
	})
	t.Run("root", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, nobody)
		o := come(s, 0, nobody)
		o.wait("owner")
		mustAnswer(t, addr, 2)
		s.wait("exit")
		o.stop()
	})
	t.Run("predecessor refused", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, nobody, somebody)
		o := come(s, somebody)
		if m := o.wait("new"); !slices.Equal(m.Is, []string{"ErrPeerRefused"}) || !regexp.MustCompile(`: pid \d+ has uid 65534, pid \d+ has uid 65533: `).MatchString(m.Err) {
			t.Errorf("New with a stranger for a predecessor: %v %s, want ErrPeerRefused", m.Is, m.Err)
		}
		mustAnswer(t, addr, 1)
		o = come(s, somebody, nobody)
		o.wait("owner")
		mustAnswer(t, addr, 2)
		s.wait("exit")
		o.stop()
	})
}

// TestDropped upgrades a service that has dropped its privileges, as one of a setuid
// program does: the next version has them again, and knows it by its control socket.
func TestDropped(t *testing.T) {
	testenv.Need(t, "root")
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Inherit, Sockets: []string{"tcp 127.0.0.1:0"}})
	if err := os.Chown(s.set.Dir, nobody, nobody); err != nil { // for the PID file
		t.Fatal(err)
	}
	cmd := as(s.varied(variation{Drops: nobody}), publicBinary(t), 0)
	cmd.Args[0] = cmd.Path // which tableflip starts
	s.startCommand(cmd)
	s.wait("owner")
	for generation := uint64(2); generation < 4; generation++ {
		s.wait("addrs")
		s.upgrade()
		s.wait("exit")
	}
	mustAnswer(t, s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], 3)
	s.stop()
}

// strangerMain says Hello at a control socket and prints what it hears.
func strangerMain(args []string) {
	uc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		fmt.Print(err)
		return
	}
	conn := fdpass.New(uc)
	_ = conn.Send(uint16(wire.TypeHello), wire.Append(nil, hello(nil)), nil) // it may be refused already
	f, err := conn.Recv()
	if err != nil {
		fmt.Print(err)
		return
	}
	m, err := wire.Decode(wire.Type(f.Type), f.Payload)
	if r, ok := m.(*wire.Refuse); ok {
		fmt.Printf("%T %d", m, r.Reason)
		return
	}
	fmt.Printf("%T %v", m, err)
}

// TestHostilePredecessor has New meet somebody at the control socket who only
// looks like a predecessor.
func TestHostilePredecessor(t *testing.T) {
	t.Parallel()
	welcome := func(change func(*wire.Welcome)) *wire.Welcome {
		w := &wire.Welcome{Version: wire.MaxVersion, Generation: 1, PID: int64(os.Getpid()), HangTimeout: time.Second}
		change(w)
		return w
	}
	sockets := func(fds int) func(*rawPeer) {
		return func(p *rawPeer) {
			p.send(welcome(func(w *wire.Welcome) { w.Sockets = 2 }))
			e := wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: ":1", Bound: "[::]:1", Domain: unix.AF_INET6, SockType: unix.SOCK_STREAM, Listening: true}
			p.send(&wire.Sockets{Seq: 1, Entries: []wire.Socket{e, e}}, nulls(p.tb, fds)...)
		}
	}
	for _, c := range []struct {
		name string
		act  func(*rawPeer)
		want error
	}{
		{"too old", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.Version, Text: "too new for me"}) }, handoff.ErrVersion},
		{"chooses another version", func(p *rawPeer) { p.send(welcome(func(w *wire.Welcome) { w.Version = 99 })) }, handoff.ErrVersion},
		{"busy", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.InProgress}) }, handoff.ErrInProgress},
		{"not ready", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.NotReady}) }, handoff.ErrNotReady},
		{"ending", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.Closed}) }, handoff.ErrClosed},
		{"refuses", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.PeerRefused}) }, handoff.ErrPeerRefused},
		{"garbage", func(p *rawPeer) { p.write(header(1<<31, 1, 1)) }, handoff.ErrProtocol},
		{"other message", func(p *rawPeer) { p.send(&wire.Commit{}) }, handoff.ErrProtocol},
		{"more sockets than there can be", func(p *rawPeer) { p.send(welcome(func(w *wire.Welcome) { w.Sockets = 1<<32 - 1 })) }, handoff.ErrProtocol},
		{"more sockets than fit", func(p *rawPeer) { p.send(welcome(func(w *wire.Welcome) { w.Sockets = 1 << 20 })) }, handoff.ErrTransfer},
		{"other sockets than said", sockets(2), handoff.ErrTransfer},
		{"fewer sockets than said", sockets(1), handoff.ErrProtocol},
		{"no sockets", sockets(0), handoff.ErrProtocol},
		{"silence", func(*rawPeer) {}, handoff.ErrTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ln, path := listenRaw(t)
			var wg sync.WaitGroup
			wg.Go(func() { // ends with the listener; New may try more than once
				for {
					uc, err := ln.AcceptUnix()
					if err != nil {
						return
					}
					p := newRawPeer(t, uc)
					if m, err := p.recv(); err != nil || m.Type() != wire.TypeHello {
						t.Errorf("first message: %T, %v, want Hello", m, err)
					}
					c.act(p)
					_, _ = io.Copy(io.Discard, uc) // until New closes it
				}
			})
			ln.SetUnlinkOnClose(false)
			err := join(path)
			if !errors.Is(err, c.want) {
				t.Errorf("New: %v, want %v", err, c.want)
			}
			_ = ln.Close()
			wg.Wait()
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the other's socket afterwards: %v", err)
			}
		})
	}
}

// jsonEnv is an environment variable that holds v.
func jsonEnv(tb testing.TB, name string, v any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return name + "=" + string(b)
}
