package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestRunCrash kills the app under load, and makes it panic. baton keeps the sockets:
// no connection is refused, and only connections that the dead process had accepted
// fail. The next process serves the connections in the queue, and those that arrive
// before it starts.
func TestRunCrash(t *testing.T) {
	t.Parallel()
	for kind, flags := range map[string][]string{
		"plain":    {"--ready-notify"},
		"takeover": {"--socket", "c/s"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := runApp(t, nil, append(flags, "--listen", "web=tcp://127.0.0.1:0", "--restart-delay", "200ms", "--restart-max-delay", "200ms"), goApp(t, kind)...)
			address := r.address()
			p := press(t, address, load.Once)
			dead := r.await("ready").PID
			const clients = 3
			kills := testenv.Times(2, 3)
			panics := kills
			var queued, gap int
			for i := range kills + panics {
				p.more(200)
				var waiting []net.Conn
				full := i >= 2 // the process has accepted no connection then
				if full {
					signalApp(t, dead, syscall.SIGHUP)
					r.await("accepts nothing")
					waiting = dialAll(t, address, clients)
					queued += clients
				}
				sig, end := syscall.SIGKILL, "killed by SIGKILL"
				if i%2 == 1 {
					sig, end = syscall.SIGUSR1, "exit status 2" // of a panic
				}
				signalApp(t, dead, sig)
				if l := r.await("ended"); l.Status != end || l.PID != dead {
					t.Errorf("process %d ended with %q, want process %d with %q", l.PID, l.Status, dead, end)
				}
				waiting = append(waiting, dialAll(t, address, clients)...)
				gap += clients
				next := r.await("ready").PID
				for _, c := range waiting {
					if pid, err := served(c); err != nil || pid != next {
						t.Errorf("crash %d: served by process %d: %v, want process %d", i+1, pid, err, next)
					}
				}
				dead = next
			}
			p.more(200)
			s := p.end()
			// Each client has one connection at a time.
			if inFlight := uint64(4 * (kills + panics)); s.Failed > inFlight || s.Failures[load.Refused] > 0 || s.Failures[load.Timeout] > 0 {
				t.Errorf("%d failed, %v, want at most %d, none refused, none forgotten: %+v", s.Failed, s.Failures, inFlight, s.Samples)
			}
			t.Logf("%s: killed=%d panicked=%d connections=%d failed=%d refused=%d, all of %d queued and %d before the restart served, longest wait %.0f ms",
				kind, kills, panics, s.Connections, s.Failed, s.Failures[load.Refused], queued, gap, s.LongestGapMS)
			r.stop()
			if n := strings.Count(r.text.String(), "panic: as the test wants it"); n != panics {
				t.Errorf("the app's log has %d panics, want %d", n, panics)
			}
		})
	}
}

func signalApp(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// dialAll opens n connections, which the test closes.
func dialAll(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, c)
	}
	return all
}

// served asks one of package load's questions on a connection, closes it, and returns
// the ID of the process that answered.
func served(c net.Conn) (pid int, err error) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintln(c, "once q"); err != nil {
		return 0, err
	}
	var greeting, version, question string
	var generation int
	_, err = fmt.Fscan(bufio.NewReader(c), &greeting, &version, &generation, &pid, &question)
	return pid, err
}
