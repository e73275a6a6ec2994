package handoff_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// TestStopSignals sends stop signals to a process that lingers behind its
// successor and to one that has none: the first leaves open connections alone,
// the second cuts them.
func TestStopSignals(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Linger: time.Minute}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		check := func(c net.Conn, gen uint64) {
			t.Helper()
			if got, err := askOver(c, "x"); err != nil || got != gen {
				t.Errorf("a connection of generation %d: answered by %d, %v", gen, got, err)
			}
		}
		open := func(gen uint64) net.Conn {
			t.Helper()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			check(c, gen)
			return c
		}
		stop := func(pid int, c net.Conn, gen uint64, logs string) {
			t.Helper()
			for i := range 2 {
				if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					eventually(t, "the signal is in the log", func() bool { return strings.Contains(s.log(), logs) })
					check(c, gen)
				}
			}
			m := s.waitFor("stopped", func(m message) bool { return m.Kind == "stopped" && m.PID == pid })
			if m.Report != nil && m.Report.Cut != 1 {
				t.Errorf("the report says %d cut, want 1", m.Report.Cut)
			}
			if _, err := askOver(c, "x"); err == nil {
				t.Error("the connection is open after the second signal")
			}
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == pid })
		}
		first, pid := open(1), s.pid()
		s.upgrade()
		second := open(2)
		stop(pid, first, 1, "ending already")
		check(second, 2)
		stop(s.pid(), second, 2, "stopping: reason=\"signal terminated\"")
		s.gone(s.pidsSeen()...)
	})
}

// joiningMain is a process that joins the predecessor at the path args[0], and fails. It
// ignores SIGINT, as one that a shell has started in the background. SIGTSTP has no
// handler before New: the runtime sets none at its start.
func joiningMain(args []string) {
	signal.Ignore(syscall.SIGINT)
	_, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: args[0], ReadyTimeout: 100 * patience, UpgradeSignals: []os.Signal{syscall.SIGTSTP},
	})
	fmt.Println(err)
	if !signal.Ignored(syscall.SIGINT) {
		os.Exit(2)
	}
	os.Exit(1)
}

// disposes reports whether a process ignores ("SigIgn") or catches ("SigCgt") a signal
// (proc_pid_status(5)).
func disposes(tb testing.TB, pid int, how string, sig syscall.Signal) bool {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, mask, _ := strings.Cut(string(b), "\n"+how+":\t")
	mask, _, _ = strings.Cut(mask, "\n")
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return bits>>(sig-1)&1 != 0
}

// TestSignalWhileJoining sends a process the stop signal while it joins a predecessor
// that refuses it, or that is silent up to the limit. The process ends as it would
// without Baton. A process that was only refused has its signal handling back. A signal
// that was ignored stays ignored.
func TestSignalWhileJoining(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		signal, refusal bool
		code            int
	}{
		{"refused", false, true, 1},
		{"signal and refusal", true, true, -1},
		{"signal and silence", true, false, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ln, path := listenRaw(t)
			cmd := testmain.Command(t, "joining", path)
			cmd.Stdout = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			uc, err := ln.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			p := newRawPeer(t, uc)
			receive := func(want wire.Type) {
				t.Helper()
				if m, err := p.recv(); err != nil || m.Type() != want {
					t.Fatalf("%T, %v, want type %d", m, err, want)
				}
			}
			receive(wire.TypeHello)
			p.send(&wire.Welcome{Version: wire.MaxVersion, Generation: 1, PID: int64(os.Getpid()), HangTimeout: time.Second, Sockets: 1, States: 1})
			file := wire.Socket{Kind: wire.KindFile, Name: "null"}
			p.send(&wire.Sockets{Seq: 1, Entries: []wire.Socket{file}}, nulls(t, 1)...)
			receive(wire.TypeAck)
			eventually(t, "New receives the signals", func() bool { return disposes(t, cmd.Process.Pid, "SigCgt", syscall.SIGTSTP) })
			if !disposes(t, cmd.Process.Pid, "SigIgn", syscall.SIGINT) {
				t.Error("New has taken SIGINT, which was ignored")
			}
			if c.refusal {
				stopProcess(t, cmd.Process.Pid) // both are there when it wakes up
				p.send(&wire.Refuse{Reason: failure.PeerRefused})
			}
			if c.signal {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if !c.refusal {
				receive(wire.TypeAbort)
			}
			var exit *exec.ExitError
			err = cmd.Wait()
			if !errors.As(err, &exit) || exit.ExitCode() != c.code || c.signal != (exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM) {
				t.Errorf("the process has ended with %v, want code %d, or SIGTERM: %t", err, c.code, c.signal)
			}
		})
	}
}

// TestSignalStorm sends upgrade signals without waiting for anything, under
// load: some begin an upgrade, the others find one in progress, and
// the service is there all the time.
func TestSignalStorm(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Millisecond}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
		for range 20 {
			// A named process may have ended: then no process but the service's own has
			// its ID.
			if pid := s.pid(); s.alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGUSR2)
			}
			l.run(1)
		}
		s.wait("committed")
		l.run(50)
		eventually(t, "one process is left, and named", func() bool {
			left := slices.DeleteFunc(s.pidsSeen(), func(pid int) bool { return !s.alive(pid) })
			return len(left) == 1 && left[0] == s.pid()
		})
		l.run(20)
		l.stop()
		messages := s.received() // an upgrade in progress may be aborted from now on
		sent := 0
		eventually(t, "the service has ended", func() bool {
			// One that commits just now leaves the end to its successor.
			b, _ := os.ReadFile(filepath.Join(s.set.Dir, "pid")) // gone with the last
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid != sent && s.alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
				sent = pid
			}
			return !slices.ContainsFunc(s.pidsSeen(), s.alive)
		})
		committed := 0
		for _, m := range messages {
			switch m.Kind {
			case "committed":
				committed++
			case "upgrade-failed":
				t.Errorf("an upgrade has failed: %v %s", m.Is, m.Err)
			}
		}
		t.Logf("20 signals, %d upgrades", committed)
	})
}

// TestBackToBack upgrades a service again as soon as it is one process.
func TestBackToBack(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Millisecond}).start()
		for range testenv.Times(4, 20) {
			s.mustCommit()
		}
		s.stop()
	})
}

// TestOwnSignals leaves SIGUSR2 to the program.
func TestOwnSignals(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}})
		s.startCommand(s.varied(variation{NoSignals: true}))
		s.wait("owner")
		for range 3 {
			s.signal(syscall.SIGUSR2)
			s.wait("usr2")
		}
		mustAnswer(t, s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"], 1)
		s.stop()
		for _, m := range s.received() {
			if m.Kind == "upgrade-started" {
				t.Error("an upgrade was started")
			}
		}
	})
}
