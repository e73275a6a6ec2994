package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// manager is systemd's end of the notify socket.
type manager struct {
	tb   testing.TB
	path string
	c    *net.UnixConn

	mu    sync.Mutex
	heard []string
	from  []int // the processes that have said it
	hold  bool  // barriers wait
	held  []int // their descriptors
	news  chan struct{}
}

func newManager(tb testing.TB) *manager {
	tb.Helper()
	m := newDeafManager(tb)
	m.listen()
	return m
}

// newDeafManager returns one that reads nothing before listen.
func newDeafManager(tb testing.TB) *manager {
	tb.Helper()
	m := &manager{tb: tb, path: filepath.Join(testenv.ShortDir(tb), "notify"), news: make(chan struct{})}
	var err error
	if m.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.c.Close() })
	raw, err := m.c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func (m *manager) listen() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.read()
	}()
	m.tb.Cleanup(func() {
		_ = m.c.Close()
		<-done
		_ = fdx.Close(m.held...)
	})
}

func (m *manager) read() {
	buf, oob := make([]byte, 8192), make([]byte, 256)
	for {
		n, oobn, _, _, err := m.c.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var fds []int
		pid := 0
		all, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, cm := range all {
			if cred, err := unix.ParseUnixCredentials(&cm); err == nil {
				pid = int(cred.Pid)
			}
			got, _ := unix.ParseUnixRights(&cm)
			fds = append(fds, got...)
		}
		m.mu.Lock()
		if m.hold {
			m.held, fds = append(m.held, fds...), nil
		}
		m.heard, m.from = append(m.heard, string(buf[:n])), append(m.from, pid)
		close(m.news)
		m.news = make(chan struct{})
		m.mu.Unlock()
		_ = fdx.Close(fds...)
	}
}

// await waits for a message with all of words, after the first n, and returns
// its number.
func (m *manager) await(n int, words ...string) int {
	m.tb.Helper()
	timeout := time.After(patience)
	for {
		m.mu.Lock()
		news := m.news
		for i := n; i < len(m.heard); i++ {
			found := 0
			for _, w := range words {
				if strings.Contains("\n"+m.heard[i]+"\n", w) {
					found++
				}
			}
			if found == len(words) {
				m.mu.Unlock()
				return i + 1
			}
		}
		m.mu.Unlock()
		select {
		case <-news:
		case <-timeout:
			m.mu.Lock()
			defer m.mu.Unlock()
			m.tb.Fatalf("systemd heard no %q after the first %d: %q", words, n, m.heard)
		}
	}
}

// startUnder starts a service whose manager is m.
func startUnder(m *manager, set settings, env ...string) *service {
	m.tb.Helper()
	s := newService(m.tb, set)
	cmd := s.command()
	cmd.Env = append(append(cmd.Env, "NOTIFY_SOCKET="+m.path), env...)
	s.startCommand(cmd)
	s.wait("owner")
	return s
}

// TestSystemdHears has systemd hear of the start, of an upgrade that fails, of
// one that is committed, and of the end.
func TestSystemdHears(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		m := newManager(t)
		s := startUnder(m, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Linger: patience})
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		n := m.await(0, "\nREADY=1\n", "\nSTATUS=generation 1, version v")

		s.plan(plan{At: "start", How: "exit1"})
		s.signal(syscall.SIGUSR2)
		s.wait("upgrade-failed")
		n = m.await(n, "\nRELOADING=1\nMONOTONIC_USEC=", "\nEXTEND_TIMEOUT_USEC=")
		n = m.await(n, "\nREADY=1\n", "upgrade failed: ")

		report := s.upgrade().Report
		n = m.await(n, "\nRELOADING=1\nMONOTONIC_USEC=")
		n = m.await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nREADY=1\n", "\nSTATUS=generation 2, version v")
		n = m.await(n, "\nBARRIER=1\n")
		s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })

		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := askOver(c, "x"); err != nil {
			t.Fatal(err)
		}
		s.signal(syscall.SIGTERM)
		n = m.await(n, "\nSTOPPING=1\n", "\nEXTEND_TIMEOUT_USEC=")
		n = m.await(n, "\nEXTEND_TIMEOUT_USEC=")
		m.await(n, "\nEXTEND_TIMEOUT_USEC=") // as long as it takes
		_ = c.Close()
		s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 2 })
	})
}

// TestSystemdBarrier has a process that was replaced stay until systemd has
// heard by whom.
func TestSystemdBarrier(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	m.mu.Lock()
	m.hold = true
	m.mu.Unlock()
	s := startUnder(m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	report := s.upgrade().Report
	m.await(0, "\nBARRIER=1\n")
	if pid := report.Predecessor.PID; !s.alive(pid) {
		t.Errorf("process %d has ended before systemd has heard of its successor", pid)
	}
	m.mu.Lock()
	held := m.held
	m.held, m.hold = nil, false
	m.mu.Unlock()
	if err := fdx.Close(held...); err != nil {
		t.Fatal(err)
	}
	s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })
	s.stop()
}

// TestSystemdWatchdog has the process that serves say that it is alive, whoever
// that is.
func TestSystemdWatchdog(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s := startUnder(m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}}, "WATCHDOG_USEC=20000")
	n := m.await(0, "\nWATCHDOG=1\n")
	report := s.upgrade().Report
	n = m.await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nWATCHDOG=1\n")
	s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })
	for range 3 {
		n = m.await(n, "\nWATCHDOG=1\n")
	}
	s.stop()
}

// TestSystemdOutsider has a successor that somebody else has started: it tells
// its own manager, and the predecessor's hears of a stop.
func TestSystemdOutsider(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s := startUnder(m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	n := m.await(0, "\nREADY=1\n")
	other := newManager(t)
	o := s.command()
	o.Env = append(o.Env, "NOTIFY_SOCKET="+other.path)
	second := newService(t, s.set)
	second.startCommand(o)
	second.wait("owner")
	other.await(0, "\nREADY=1\n", "\nSTATUS=generation 2")
	m.await(n, "\nSTOPPING=1\n")
	s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })
	second.stop()
}

// TestSystemdSlow has systemd read nothing while an upgrade fails: who hears of
// that by the hook can begin the next one in the same moment.
func TestSystemdSlow(t *testing.T) {
	dir := testenv.ShortDir(t)
	addr := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", addr.Name)
	second := make(chan error, 2)
	var up *handoff.Upgrader
	made := make(chan struct{})
	up = newUpgrader(t, handoff.Config{
		Executable: "/bin/sh", Args: []string{"-c", "until test -e " + filepath.Join(dir, "go") + "; do sleep 0.01; done; exit 1"},
		OnEvent: func(e handoff.Event) {
			<-made
			if e.Kind != handoff.EventUpgradeFailed || len(second) > 0 {
				return
			}
			// systemd comes to itself: after the answer, if that is an error.
			time.AfterFunc(50*time.Millisecond, func() { _, _ = io.Copy(io.Discard, c) })
			second <- up.Upgrade(context.Background())
		},
	})
	close(made)
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	go func() { first <- up.Upgrade(context.Background()) }()
	eventually(t, "the successor is started", func() bool {
		st := up.Status()
		return st.Upgrade != nil && st.Upgrade.Kind == handoff.EventUpgradeStarted
	})
	w, err := net.DialUnix("unixgram", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	// The first one that does not fit ends it: nobody reads.
	for err == nil {
		if err = w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err == nil {
			_, err = w.Write([]byte("X=1"))
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]chan error{"first": first, "second": second} {
		if err := <-c; !errors.Is(err, handoff.ErrSuccessorDied) {
			t.Errorf("%s Upgrade() = %v, want ErrSuccessorDied", name, err)
		}
	}
}
