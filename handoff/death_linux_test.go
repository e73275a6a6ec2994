package handoff_test

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
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
	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestPredecessorKilled kills the predecessor at each step of an upgrade.
func TestPredecessorKilled(t *testing.T) {
	const socket = "0 tcp 127.0.0.1:0"
	cases := []struct {
		name string
		at   string // where the successor waits when the predecessor is killed
		end  string // what the successor says next
		is   string
		v    variation
	}{
		{"before the transfer", "start", "new", "ErrPredecessorDied", variation{}}, // takeover; a successor in mode Inherit has its sockets
		{"before the transfer, and it would dial", "start", "new", "ErrPredecessorDied", variation{Taken: true}},
		{"before ready", "joined", "owner", "", variation{}},
		{"before ready, and it has dialled", "joined", "owner", "", variation{Taken: true}},
		{"listening", "listening", "owner", "", variation{}},
		{"in probation", "probation", "owner", "", variation{}},
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for i, c := range cases {
			if c.v.Taken && mode != handoff.Inherit {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				if !turn(i, mode) && !c.v.Taken {
					testenv.Long(t, "TestPredecessorKilled")
				}
				t.Parallel()
				s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute})
				s.startCommand(s.varied(c.v))
				s.wait("owner")
				addr := s.wait("addrs").Addrs[socket]
				pid := s.pid()
				s.plan(plan{At: c.at, How: "wait"})
				s.signal(syscall.SIGUSR2)
				waits := s.wait("waits")
				if mode == handoff.Inherit && c.at == "start" {
					// tableflip passes the names through a pipe, descriptor 4 of its
					// child. A child that has not read all of them has inherited
					// nothing.
					eventually(t, "tableflip has passed the names on", func() bool { return namesRead(t, waits.PID, 4) })
				}
				// A connection that waits in the queue when the process dies: paused
				// in probation, and stopped before that.
				stopProcess(t, pid)
				var queued net.Conn
				if c.at != "probation" && c.at != "start" {
					var err error
					if queued, err = net.Dial("tcp", addr); err != nil {
						t.Fatal(err)
					}
					defer queued.Close()
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				s.let()
				gen := uint64(2)
				if mode == handoff.Inherit && c.at == "start" {
					c.end, c.is, gen = "owner", "", 1 // of a line of its own
				}
				m := s.waitFor(c.end, func(m message) bool { return m.Kind == c.end && m.PID != pid })
				if c.is != "" {
					if !slices.Contains(m.Is, c.is) {
						t.Errorf("successor: %v %s, want %s", m.Is, m.Err, c.is)
					}
					s.gone(s.pidsSeen()...)
					return
				}
				if queued != nil {
					if got, err := askOver(queued, "queued"); err != nil || got != gen {
						t.Errorf("queued connection: generation %d, %v, want %d", got, err, gen)
					}
				}
				if got, err := ask("tcp", addr); err != nil || got != gen {
					t.Errorf("new connection: generation %d, %v, want %d", got, err, gen)
				}
				eventually(t, "the PID file names the successor", func() bool { return s.pid() == m.PID })
				// The successor is as good a predecessor as any.
				s.set.Probation = 100 * time.Millisecond
				_ = os.Remove(filepath.Join(s.set.Dir, "go"))
				s.signal(syscall.SIGUSR2)
				s.waitFor("paused", func(m message) bool { return m.Kind == "paused" && m.Generation == gen })
				s.alone(addr, gen+1)
				if got, err := ask("tcp", addr); err != nil || got != gen+1 {
					t.Errorf("after the next upgrade: generation %d, %v, want %d", got, err, gen+1)
				}
			})
		}
	})
}

// namesRead reports whether the pipe of a process holds a whole gob.
func namesRead(tb testing.TB, pid, fd int) bool {
	tb.Helper()
	pipe, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(pipe)
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	to, err := fdx.Number(w)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := unix.Tee(pipe, to, 1<<16, unix.SPLICE_F_NONBLOCK); err != nil && !errors.Is(err, unix.EAGAIN) {
		tb.Fatal(err)
	}
	_ = w.Close() // a pipe
	var names [][]string
	return gob.NewDecoder(r).Decode(&names) == nil
}

// TestPredecessorStopped stops the predecessor in probation for longer than the
// hang timeout: the successor carries on, and the other yields when it wakes up.
func TestPredecessorStopped(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Hang: soon}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		pid := s.pid()
		s.signal(syscall.SIGUSR2)
		s.wait("paused")
		stopProcess(t, pid)
		m := s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != pid })
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == pid })
		if gen, err := ask("tcp", addr); err != nil || gen != 2 {
			t.Errorf("new connection: generation %d, %v, want 2", gen, err)
		}
		eventually(t, "the PID file names the successor", func() bool { return s.pid() == m.PID })
		s.stop()
	})
}

// held returns a new connection that a generation has answered, and holds.
func (s *service) held(addr string, gen uint64) net.Conn {
	s.tb.Helper()
	s.alone(addr, gen)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { c.Close() })
	if got, err := askOver(c, "hello"); err != nil || got != gen {
		s.tb.Fatalf("new connection: generation %d, %v, want %d", got, err, gen)
	}
	return c
}

// TestStopInUpgrade sends the service a stop signal when its successor has accepted a
// connection: in probation, and when the successor is ready but the predecessor has not
// received that. The successor serves what it has accepted, and the predecessor ends
// after it, unless it gets a second stop signal.
func TestStopInUpgrade(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for i, at := range []string{"probation", "warming", "probation, twice"} {
			if at == "warming" && mode == handoff.Drain {
				continue // a successor is not ready before its predecessor has what it lends
			}
			t.Run(at, func(t *testing.T) {
				if !turn(i, mode) {
					testenv.Long(t, "TestStopInUpgrade")
				}
				t.Parallel()
				m := fakesystemd.Start(t)
				s := startUnder(t, m, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Linger: time.Hour})
				addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
				pid := s.pid()
				if at == "warming" {
					s.plan(plan{At: "listening", How: "wait"})
				}
				s.signal(syscall.SIGUSR2)
				if at == "warming" {
					s.wait("warming")
					stopProcess(t, pid)
					s.let()
				} else {
					s.wait("paused")
				}
				s.waitFor("ready", func(m message) bool { return m.Kind == "ready" && m.PID != pid })
				c := s.held(addr, 2)
				check := func() {
					t.Helper()
					if gen, err := askOver(c, "x"); err != nil || gen != 2 {
						t.Fatalf("a connection that the successor has: generation %d, %v, want 2", gen, err)
					}
				}
				for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
					if err := syscall.Kill(pid, sig); err != nil {
						t.Fatal(err)
					}
				}
				n := m.Await(0, "\nSTOPPING=1\n")
				s.wait("upgrade-failed")
				for range testenv.Times(1, 3) { // systemd gets an extension each second
					n = m.Await(n, "\nEXTEND_TIMEOUT_USEC=")
					check()
				}
				if at == "probation, twice" {
					if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
						t.Fatal(err)
					}
				} else {
					_ = c.Close() // which is what both wait for
				}
				s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == pid })
				s.gone(s.pidsSeen()...)
			})
		}
	})
}

// TestUpgradeAfterRollback begins another upgrade while a successor that was rolled
// back serves what it has accepted: that stays as it is, and in mode Inherit, where
// there is one child at a time, the upgrade has to wait for its end.
func TestUpgradeAfterRollback(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		set := settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute}
		if mode == handoff.Inherit {
			set.Hang = soon // an upgrade waits twice that for the end of the last successor
		}
		s := newService(t, set).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		s.signal(syscall.SIGUSR2)
		first := s.waitFor("ready", func(m message) bool { return m.Kind == "ready" && m.PID != s.pid() }).PID
		s.wait("paused")
		c := s.held(addr, 2)
		check := func(when string) {
			t.Helper()
			if gen, err := askOver(c, "held"); err != nil || gen != 2 {
				t.Fatalf("a connection that the first successor has, %s: generation %d, %v, want 2", when, gen, err)
			}
		}
		s.signal(syscall.SIGUSR1)
		s.wait("upgrade-failed")
		s.wait("upgrade-started")
		s.signal(syscall.SIGUSR2)
		s.wait("upgrade-started")
		if mode == handoff.Inherit {
			s.wait("waiting")
			s.signal(syscall.SIGUSR1) // not to wait for that
			m := s.wait("upgrade-failed")
			if !slices.Equal(m.Is, []string{"ErrRolledBack"}) || !strings.Contains(m.Err, fmt.Sprintf("the last one (pid %d) has ended", first)) {
				t.Errorf("a rollback of an upgrade that waits: %v %s, want ErrRolledBack, and what it waited for", m.Is, m.Err)
			}
			s.signal(syscall.SIGUSR2)
			m = s.wait("upgrade-failed")
			if !slices.Contains(m.Is, "ErrInProgress") || !strings.Contains(m.Err, "still serves") {
				t.Errorf("upgrade: %v %s, want ErrInProgress", m.Is, m.Err)
			}
		} else {
			s.wait("paused")
			check("while the second is in probation")
			s.signal(syscall.SIGUSR1)
			s.wait("upgrade-failed")
		}
		check("after the second upgrade")
		_ = c.Close()
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == first })
		eventually(t, "the first successor has ended", func() bool { return !s.alive(first) }) // the race detector has a process end later
		s.signal(syscall.SIGUSR2)
		s.wait("paused")
		s.stop()
	})
}

// TestWaitGivenUp ends upgrades of mode Inherit that have yet to start their successor,
// as the process before this one lingers: by a rollback, and by a stop signal.
func TestWaitGivenUp(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Inherit, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: 10 * time.Millisecond, Ready: 100 * patience}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	first := s.pid()
	c := s.held(addr, 1)
	s.upgrade()
	client, err := control.New(&control.Config{Socket: controlOf(s)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first process has told what it serves", func() bool {
		st, err := client.Status(t.Context())
		return err == nil && len(st.Lingering) == 1 && st.Lingering[0].Open == 1
	})
	waits := func() {
		t.Helper()
		s.signal(syscall.SIGUSR2)
		m := s.waitFor("waiting", func(m message) bool { return m.Kind == "waiting" && m.PID != first })
		want := fmt.Sprintf(`the process before this one \(pid %d\) has ended, which still serves open connections \(1 open, cut in \S+s\); waiting since \d\d:\d\d:\d\d, until \d\d:\d\d:\d\d$`, first)
		if !regexp.MustCompile(want).MatchString(m.Err) {
			t.Errorf("the event of an upgrade that waits: %s, want %s", m.Err, want)
		}
		if st, err := client.Status(t.Context()); err != nil || st.Upgrade == nil || st.Upgrade.Reason != m.Err {
			t.Errorf("the status while an upgrade waits: %+v, %v, want the reason of the event", st, err)
		}
	}
	waits()
	s.signal(syscall.SIGUSR1)
	m := s.wait("upgrade-failed")
	if !slices.Equal(m.Is, []string{"ErrRolledBack"}) || !strings.Contains(m.Err, "the process before this one") {
		t.Errorf("a rollback of an upgrade that waits: %v %s, want ErrRolledBack, and what it waited for", m.Is, m.Err)
	}
	waits()
	s.signal(syscall.SIGTERM)
	s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID != first })
	if gen, err := askOver(c, "held"); err != nil || gen != 1 {
		t.Errorf("the connection that both have waited for: generation %d, %v, want 1", gen, err)
	}
	_ = c.Close()
	s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID == first })
	s.gone(s.pidsSeen()...)
}

// TestRollback takes the sockets back in probation.
func TestRollback(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0", "unix u"}, Probation: time.Minute, State: true})
		s.set.Sockets[1] = "unix " + filepath.Join(s.set.Dir, "u")
		s.start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		pid := s.pid()
		s.signal(syscall.SIGUSR2)
		s.wait("paused")
		c := s.held(addr, 2)
		s.signal(syscall.SIGUSR1)
		m := s.wait("upgrade-failed")
		if !slices.Contains(m.Is, "ErrRolledBack") || m.Report.Outcome != handoff.OutcomeRolledBack {
			t.Errorf("upgrade: %v %s, outcome %q", m.Is, m.Err, m.Report.Outcome)
		}
		if gen, err := ask("tcp", addr); err != nil || gen != 1 {
			t.Errorf("after the rollback: generation %d, %v, want 1", gen, err)
		}
		// What the successor has accepted it serves to the end, and then goes.
		if gen, err := askOver(c, "still"); err != nil || gen != 2 {
			t.Errorf("connection that the successor accepted: generation %d, %v, want 2", gen, err)
		}
		_ = c.Close()
		exit := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.PID != pid })
		if !slices.Contains(exit.Is, "ErrRolledBack") {
			t.Errorf("Err() of the successor: %v %s, want ErrRolledBack", exit.Is, exit.Err)
		}
		if gen, err := ask("unix", filepath.Join(s.set.Dir, "u")); err != nil || gen != 1 {
			t.Errorf("unix socket after the rollback: generation %d, %v, want 1", gen, err)
		}
		if got := s.pid(); got != pid {
			t.Errorf("PID file: %d, want %d", got, pid)
		}
		s.stop()
	})
}
