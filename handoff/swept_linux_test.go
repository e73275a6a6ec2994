package handoff_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
)

// answers reports whether the process pid answers at the control socket.
func (s *service) answers(pid int) bool {
	s.tb.Helper()
	c, err := control.New(&control.Config{Socket: controlOf(s)})
	if err != nil {
		s.tb.Fatal(err)
	}
	st, err := c.Status(s.tb.Context())
	return err == nil && st.PID == pid
}

// TestSwept removes the control socket of a service, and its folder: the process makes
// it again, and before it starts a successor, which has it as well.
func TestSwept(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: soon}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		sweeps := []func() error{
			func() error { return os.Remove(controlOf(s)) },
			func() error { return os.RemoveAll(filepath.Dir(controlOf(s))) },
		}
		for _, sweep := range sweeps {
			if err := sweep(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the service answers again", func() bool { return s.answers(s.pid()) })
		}
		for i, sweep := range sweeps {
			if err := sweep(); err != nil {
				t.Fatal(err)
			}
			s.mustCommit()
			mustAnswer(t, addr, uint64(i+2))
			eventually(t, "the successor answers", func() bool { return s.answers(s.pid()) })
		}
		// Programs that remove old files find none.
		old := time.Now().Add(-30 * 24 * time.Hour)
		for _, path := range []string{controlOf(s) + ".lock", controlOf(s)} {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
			eventually(t, path+" has new times", func() bool {
				fi, err := os.Stat(path)
				return err == nil && (strings.HasSuffix(path, ".lock") || time.Since(fi.ModTime()) < time.Hour)
			})
		}
		if fi, err := os.Stat(controlOf(s) + ".lock"); err != nil || time.Since(fi.ModTime()) > time.Hour {
			t.Errorf("the lock file is of %v, %v", fi.ModTime(), err)
		}
		s.stop()
	})
}

// TestSweptJoin starts the next version by hand right after the control socket was removed:
// it is the successor, no second service.
func TestSweptJoin(t *testing.T) {
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Drain} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: 2 * soon}).start()
			addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			if err := os.RemoveAll(filepath.Dir(controlOf(s))); err != nil {
				t.Fatal(err)
			}
			o := newService(t, s.set)
			o.set.Sockets = []string{"tcp " + addr}
			o.startCommand(o.command())
			if m := o.waitFor("the second process", func(m message) bool { return m.Kind == "owner" || m.Kind == "new" }); m.Generation != 2 {
				t.Errorf("the second process has %q as generation %d (%s), want an owner as 2", m.Kind, m.Generation, m.Err)
			}
			s.wait("exit")
			mustAnswer(t, addr, 2)
			o.stop()
		})
	}
}

// TestSweptTaken puts another server's socket in the place of the control socket: it stays,
// the service says so, and has its own again when that one is gone.
func TestSweptTaken(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: soon}).start()
		path := controlOf(s)
		beside, err := net.Listen("unix", path+"2")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"2", path); err != nil { // at once: no moment without
			t.Fatal(err)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log says who has the path", func() bool {
			return strings.Contains(s.log(), "serves the control socket at "+path+" in place of this process")
		})
		s.mustCommit()
		eventually(t, "the log of the successor says so", func() bool {
			return strings.Count(s.log(), "serves the control socket at "+path+" in place of this process") > 1
		})
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("the other server's socket was replaced (%v)", err)
		}
		if err := errors.Join(beside.Close(), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the service answers again", func() bool { return s.answers(s.pid()) })
		s.stop()
	})
}
