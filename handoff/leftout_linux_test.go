package handoff_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestLeftOut upgrades to a version that leaves out a TCP and a unix listener, under
// load: their clients are served by the predecessor until they are refused, and the
// report names what is given up. A rollback before costs nothing.
func TestLeftOut(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Defer: true})
		path := filepath.Join(s.set.Dir, "old")
		s.set.Sockets = []string{"tcp 127.0.0.1:0", "tcp localhost:0", "unix " + path}
		s.start()
		addrs := s.wait("addrs").Addrs
		kept, old := addrs["0 tcp 127.0.0.1:0"], addrs["1 tcp localhost:0"]
		l := newLoad(t, s.set.Dir, map[string]string{"kept tcp": kept, "old tcp": old, "old unix " + path: path})
		l.run(5)
		s.plan(plan{At: "probation", How: "abort", Sockets: []string{"tcp 127.0.0.1:0"}})
		s.signal(syscall.SIGUSR2)
		s.wait("upgrade-failed")
		l.run(20)
		s.plan(plan{At: "probation", How: "hold", Sockets: []string{"tcp 127.0.0.1:0"}})
		s.signal(syscall.SIGUSR2)
		s.wait("waits")
		for _, a := range [][2]string{{"tcp", old}, {"unix", path}} {
			if gen, err := ask(a[0], a[1]); err != nil || gen != 1 {
				t.Errorf("%v in probation: generation %d, %v, want 1", a, gen, err)
			}
		}
		l.stop()
		half, err := net.Dial("tcp", old) // its handshake ends with what it sends
		if err != nil {
			t.Fatal(err)
		}
		queued, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s.let()
		eventually(t, "the address that was given up refuses", func() bool {
			c, err := net.Dial("tcp", old)
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		if mode == handoff.Drain {
			s.wait("moved") // the successor does not wait for them
		}
		for _, c := range []net.Conn{half, queued} {
			if gen, err := askOver(c, "x"); err != nil || gen != 1 {
				t.Errorf("%v, which was under way: generation %d, %v, want 1", c.RemoteAddr(), gen, err)
			}
			_ = c.Close()
		}
		text := strings.Join(s.wait("committed").Report.Warnings, "\n")
		for _, want := range []string{"tcp " + old + " is given up", "unix " + path + " is given up"} {
			if !strings.Contains(text, want) {
				t.Errorf("warnings %q, want %q", text, want)
			}
		}
		if strings.Contains(text, kept) || strings.Contains(text, "lost") {
			t.Errorf("warnings %q", text)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the path that was given up: %v, want none", err)
		}
		mustAnswer(t, kept, 2)
		s.stop()
	})
}

// TestLeftOutAccept has a program that accepts on an address which its successor leaves out:
// Accept returns no error before Done, whatever is still to be served on another one. A
// successor that calls Ready twice at once is ready once.
func TestLeftOutAccept(t *testing.T) {
	t.Parallel()
	cfg := handoff.Config{ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"), Probation: -1}
	up := newUpgrader(t, cfg)
	var ln [3]*handoff.Listener
	for i := range ln {
		var err error
		if ln[i], err = up.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	early := make(chan error, 1)
	go func() { // ends with Done
		_, err := ln[1].Accept()
		select {
		case <-up.Done():
			err = nil
		default:
		}
		early <- err
	}()
	queued, err := net.Dial("tcp", ln[2].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer queued.Close()
	next := newUpgrader(t, cfg)
	if _, err := next.Listen(t.Context(), "tcp", ln[0].Addr().String()); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { second <- next.Ready() }()
	if err := errors.Join(next.Ready(), <-second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the empty one is closed", func() bool {
		raw, err := ln[1].SyscallConn()
		return err != nil || raw.Control(func(uintptr) {}) != nil
	})
	if c, err := ln[2].Accept(); err != nil {
		t.Errorf("what was queued: %v", err)
	} else {
		_ = c.Close()
	}
	if err := <-early; err != nil {
		t.Errorf("Accept before Done: %v", err)
	}
}

// TestOtherService has a program that serves none of its predecessor's addresses join,
// and one that leaves out what it must not.
func TestOtherService(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		for _, p := range []plan{
			{Sockets: []string{"tcp 127.0.0.2:0"}},
			{Sockets: []string{"tcp 127.0.0.1:0"}, RequireAll: true},
		} {
			s.plan(p)
			s.signal(syscall.SIGUSR2)
			m := s.wait("upgrade-failed")
			if !slices.Contains(m.Is, "ErrAborted") || !strings.Contains(m.Err, "127.0.0.1:") {
				t.Errorf("%+v: %v %v, want ErrAborted, and what was left out", p, m.Err, m.Is)
			}
			mustAnswer(t, addr, 1)
		}
		s.stop()
	})
}

// TestMismatch has two Upgraders of one control socket that are no versions of one service.
func TestMismatch(t *testing.T) {
	t.Parallel()
	cfg := handoff.Config{Name: "web", ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s")}
	up := newUpgrader(t, cfg)
	if _, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	none := newUpgrader(t, cfg)
	if err := none.Ready(); !errors.Is(err, handoff.ErrMismatch) || !strings.Contains(err.Error(), "127.0.0.1:") {
		t.Errorf("Ready without the predecessor's sockets = %v, want ErrMismatch", err)
	}
	if err := none.Close(); err != nil {
		t.Error(err)
	}
	cfg.Name, cfg.Mode = "api", handoff.Takeover
	other, err := handoff.New(&cfg)
	if err == nil {
		_ = other.Close()
	}
	if !errors.Is(err, handoff.ErrMismatch) || !strings.Contains(err.Error(), `"web"`) {
		t.Errorf("New with another Name = %v, want ErrMismatch", err)
	}
}

// TestChangedAddress upgrades to a version with another address of the same port, under
// load, and back: no connection is lost.
func TestChangedAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		t.Run("both", func(t *testing.T) { // the wider one is asked for first
			t.Parallel()
			port := freePort(t)
			s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:" + port}}).start()
			s.plan(plan{Sockets: []string{"tcp4 0.0.0.0:" + port, "tcp 127.0.0.1:" + port}})
			if r := s.mustCommit(); slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, port) }) {
				t.Errorf("warnings %q", r.Warnings)
			}
			mustAnswer(t, "127.0.0.1:"+port, 2)
			mustAnswer(t, "127.0.0.2:"+port, 2)
			s.stop()
		})
		for i, c := range [][2]string{
			{"tcp 127.0.0.1:", "tcp 0.0.0.0:"},
			{"tcp 127.0.0.1:", "tcp4 0.0.0.0:"},
			{"tcp4 0.0.0.0:", "tcp [::]:"},
			{"tcp :", "tcp4 127.0.0.1:"},
			{"tcp 127.0.0.1:", "tcp4 127.0.0.1:"},
			{"tcp :", "tcp 0.0.0.0:"},
		} {
			t.Run(fmt.Sprint(c[0], " ", c[1]), func(t *testing.T) {
				if !turn(i, mode) {
					testenv.Long(t, "TestChangedAddress")
				}
				t.Parallel()
				port := freePort(t)
				first, second := c[0]+port, c[1]+port
				s := newService(t, settings{Mode: mode, MPTCP: mode != handoff.Drain && i%2 == 1, Sockets: []string{first}})
				s.start()
				l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": "127.0.0.1:" + port, "1 tcp": "127.0.0.1:" + port, "2 tcp": "127.0.0.1:" + port})
				for gen, sockets := range []string{second, first, second} {
					l.run(20)
					s.plan(plan{Sockets: []string{sockets}})
					s.upgrade()
					s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(gen+1) })
				}
				l.run(20)
				l.stop()
				if got := l.last.Load(); got != 4 {
					t.Errorf("generation that answers: %d, want 4", got)
				}
				s.stop()
			})
		}
	})
}
