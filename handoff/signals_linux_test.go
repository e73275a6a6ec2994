package handoff_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
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
		stop := func(pid int, c net.Conn, gen uint64, hears string) {
			t.Helper()
			for i := range 2 {
				if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					eventually(t, "the signal is heard", func() bool { return strings.Contains(s.log.String(), hears) })
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
		s.gone(s.pidsHeard()...)
	})
}
