package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// startUnder starts a service whose manager is m.
func startUnder(tb testing.TB, m *fakesystemd.Systemd, set settings, env ...string) *service {
	tb.Helper()
	s := newService(tb, set)
	cmd := s.command()
	cmd.Env = append(append(cmd.Env, "NOTIFY_SOCKET="+m.Path), env...)
	s.startCommand(cmd)
	s.wait("owner")
	return s
}

// TestSystemdMessages wants messages of the start, of an upgrade that fails, of one
// that is committed, and of the end.
func TestSystemdMessages(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		m := fakesystemd.Start(t)
		s := startUnder(t, m, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Linger: patience})
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		n := m.Await(0, "\nREADY=1\n", "\nSTATUS=generation 1, version v")

		s.plan(plan{At: "start", How: "exit1"})
		s.signal(syscall.SIGUSR2)
		s.wait("upgrade-failed")
		n = m.Await(n, "\nRELOADING=1\nMONOTONIC_USEC=", "\nEXTEND_TIMEOUT_USEC=")
		n = m.Await(n, "\nREADY=1\n", "upgrade failed: ")

		report := s.upgrade().Report
		n = m.Await(n, "\nRELOADING=1\nMONOTONIC_USEC=")
		n = m.Await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nREADY=1\n", "\nSTATUS=generation 2, version v")
		n = m.Await(n, "\nBARRIER=1\n")
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
		n = m.Await(n, "\nSTOPPING=1\n", "\nEXTEND_TIMEOUT_USEC=")
		n = m.Await(n, "\nEXTEND_TIMEOUT_USEC=")
		m.Await(n, "\nEXTEND_TIMEOUT_USEC=") // as long as it takes
		_ = c.Close()
		s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 2 })
	})
}

// TestSystemdBarrier delays systemd's answer about the new main process. The replaced
// process stays until it arrives.
func TestSystemdBarrier(t *testing.T) {
	t.Parallel()
	m := fakesystemd.Start(t)
	m.HoldBarriers()
	s := startUnder(t, m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	report := s.upgrade().Report
	m.Await(0, "\nBARRIER=1\n")
	if pid := report.Predecessor.PID; !s.alive(pid) {
		t.Errorf("process %d has ended before systemd has read of its successor", pid)
	}
	m.ReleaseBarriers()
	s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })
	s.stop()
}

// TestSystemdWatchdog wants messages for the watchdog from the first process that
// serves, and then from its successor.
func TestSystemdWatchdog(t *testing.T) {
	t.Parallel()
	m := fakesystemd.Start(t)
	s := startUnder(t, m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}}, "WATCHDOG_USEC=20000")
	n := m.Await(0, "\nWATCHDOG=1\n")
	report := s.upgrade().Report
	n = m.Await(n, fmt.Sprintf("\nMAINPID=%d\n", report.Successor.PID), "\nWATCHDOG=1\n")
	s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })
	for range 3 {
		n = m.Await(n, "\nWATCHDOG=1\n")
	}
	s.stop()
}

// TestSystemdOutsider takes a service over by a process of another unit: its own
// systemd gets READY=1, the predecessor's gets STOPPING=1.
func TestSystemdOutsider(t *testing.T) {
	t.Parallel()
	m := fakesystemd.Start(t)
	s := startUnder(t, m, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}})
	n := m.Await(0, "\nREADY=1\n")
	other := fakesystemd.Start(t)
	o := s.command()
	o.Env = append(o.Env, "NOTIFY_SOCKET="+other.Path)
	second := newService(t, s.set)
	second.startCommand(o)
	second.wait("owner")
	other.Await(0, "\nREADY=1\n", "\nSTATUS=generation 2")
	m.Await(n, "\nSTOPPING=1\n")
	s.waitFor("exit", func(msg message) bool { return msg.Kind == "exit" && msg.Generation == 1 })
	second.stop()
}

// TestSystemdSlow lets an upgrade fail while systemd reads nothing: OnEvent can begin
// the next one at once.
func TestSystemdSlow(t *testing.T) {
	m := fakesystemd.New(t)
	dir := testenv.ShortDir(t)
	t.Setenv("NOTIFY_SOCKET", m.Path)
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
			time.AfterFunc(50*time.Millisecond, m.Read)
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
	m.Fill()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]chan error{"first": first, "second": second} {
		if err := <-c; !errors.Is(err, handoff.ErrSuccessorDied) {
			t.Errorf("%s Upgrade() = %v, want ErrSuccessorDied", name, err)
		}
	}
}
