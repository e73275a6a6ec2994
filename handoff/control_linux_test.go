package handoff_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// TestControlMode watches a control socket being created, without a umask. The socket
// and its folder have their modes from the first moment; no later chmod is needed.
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
		s.gone(s.pidsSeen()...)
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
	if m := o.wait("new"); !strings.Contains(m.Err, "set another Name, or replace that process in mode Takeover") {
		t.Errorf("New: %s, want what to do", m.Err)
	}
	mustAnswer(t, addr, 1)
	s.stop()
}

// otherUID and thirdUID are the uids of two users other than root.
const otherUID, thirdUID = 65534, 65533

// as runs path as another user. CAP_DAC_OVERRIDE (capabilities(7)) lets it reach the
// service's folder, so file modes are not what refuses it.
func as(cmd *exec.Cmd, path string, uid uint32) *exec.Cmd {
	const capDACOverride = 1
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	cmd.SysProcAttr.AmbientCaps = []uintptr{capDACOverride}
	cmd.Path = path
	return cmd
}

// publicBinary returns a path of this binary that each user can run.
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

// TestUsers starts successors as other users.
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
		// A folder of the user: it is no reason to refuse a process.
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
		o := come(s, otherUID)
		if m := o.wait("new"); !slices.Equal(m.Is, []string{"ErrPeerRefused"}) || !regexp.MustCompile(`: pid \d+ has uid 65534, pid \d+ has uid 0: run both as one user, or set Config.Allow`).MatchString(m.Err) {
			t.Errorf("New of a process with another uid: %v %s, want ErrPeerRefused", m.Is, m.Err)
		}
		var out strings.Builder
		cmd := as(testmain.Command(t, "hello", controlOf(s)), path, otherUID)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil || out.String() != fmt.Sprintf("*wire.Refuse %d", failure.PeerRefused) {
			t.Errorf("the answer to a process with another uid: %q, %v, want a refusal: %v", &out, err, failure.PeerRefused)
		}
		mustAnswer(t, addr, 1)
		s.upgrade()
		mustAnswer(t, addr, 2)
		s.stop()
	})
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, 0, otherUID)
		o := come(s, otherUID)
		o.wait("owner")
		mustAnswer(t, addr, 2)
		s.wait("exit")
		o.stop()
	})
	t.Run("root", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, otherUID)
		if c, err := control.New(&control.Config{Socket: controlOf(s)}); err != nil {
			t.Error(err)
		} else if _, err := c.Status(t.Context()); err != nil {
			t.Errorf("root asks for the status: %v", err)
		}
		o := come(s, 0, otherUID)
		o.wait("owner")
		mustAnswer(t, addr, 2)
		s.wait("exit")
		o.stop()
	})
	t.Run("predecessor refused", func(t *testing.T) {
		t.Parallel()
		s, addr := start(t, otherUID, thirdUID)
		o := come(s, thirdUID)
		if m := o.wait("new"); !slices.Equal(m.Is, []string{"ErrPeerRefused"}) || !regexp.MustCompile(`: pid \d+ has uid 65534, pid \d+ has uid 65533: `).MatchString(m.Err) {
			t.Errorf("New with a predecessor that has another uid: %v %s, want ErrPeerRefused", m.Is, m.Err)
		}
		mustAnswer(t, addr, 1)
		o = come(s, thirdUID, otherUID)
		o.wait("owner")
		mustAnswer(t, addr, 2)
		s.wait("exit")
		o.stop()
	})
}

// TestDropped upgrades a service that has dropped its privileges, as one of a setuid
// program does: the next version has them again, and knows it by its control socket. Its
// stop is clean, although it may not remove that.
func TestDropped(t *testing.T) {
	testenv.Need(t, "root")
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Inherit, Sockets: []string{"tcp 127.0.0.1:0"}})
	s.foldersOf(0, otherUID)
	cmd := as(s.varied(variation{Drops: otherUID}), publicBinary(t), 0)
	cmd.Args[0] = cmd.Path // which tableflip starts
	s.startCommand(cmd)
	s.wait("owner")
	for generation := uint64(2); generation < 4; generation++ {
		s.wait("addrs")
		s.upgrade()
		s.wait("exit")
	}
	mustAnswer(t, s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], 3)
	s.signal(syscall.SIGTERM)
	s.wait("exit")
	s.gone(s.pidsSeen()...)
	s.line.Wait() // for the rest of the log
	if log := s.log(); !strings.Contains(log, "a file was not removed, for want of permission") || strings.Contains(log, "shutdown:") {
		t.Errorf("the stop: %s", log)
	}
}

// helloMain sends Hello at a control socket and prints the answer.
func helloMain(args []string) {
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
