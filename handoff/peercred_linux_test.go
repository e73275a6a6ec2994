package handoff_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// serverOf returns the process that the kernel names to a client of a unix listener.
func serverOf(tb testing.TB, network, address string) int {
	tb.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	cred, err := fdx.PeerCred(c.(*net.UnixConn))
	if err != nil {
		tb.Fatal(err)
	}
	return cred.PID
}

// TestPeerCred asks the kernel for the server of each unix listener: it is the process
// that owns the sockets, after an upgrade and after one that was rolled back.
func TestPeerCred(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode})
		dir := s.set.Dir
		listeners := map[string]string{
			filepath.Join(dir, "u"): "unix", filepath.Join(dir, "p"): "unixpacket", "@baton-test-" + filepath.Base(dir): "unix",
		}
		for address, network := range listeners {
			s.set.Sockets = append(s.set.Sockets, network+" "+address)
		}
		listeners[controlOf(s)] = "unix"
		owner := s.start().pid()
		check := func() {
			t.Helper()
			for address, network := range listeners {
				if pid := serverOf(t, network, address); pid != owner {
					t.Errorf("SO_PEERCRED of a client of %s names pid %d, want %d", address, pid, owner)
				}
			}
		}
		check()
		s.plan(plan{At: "probation", How: "abort"})
		s.mustFail("a planned abort")
		check()
		for range 2 {
			owner = s.mustCommit().Successor.PID
			s.waitFor("the owner", func(m message) bool { return m.Kind == "owner" && m.PID == owner })
			check()
		}
		s.stop()
	})
}
