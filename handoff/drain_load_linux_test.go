package handoff_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestDrainModes goes from mode to mode: reuseport sockets are passed on as they
// are by Takeover, and replaced by Drain.
func TestDrainModes(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Reuseport: true, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	addrs := s.wait("addrs").Addrs
	l := newLoad(t, s.set.Dir, addrs)
	path := []handoff.Mode{handoff.Takeover, handoff.Drain, handoff.Drain, handoff.Takeover, handoff.Takeover, handoff.Drain, handoff.Drain}
	for i, mode := range path[:testenv.Times(3, len(path))] {
		l.run(20)
		s.plan(plan{Mode: &mode})
		s.upgrade()
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
	}
	l.run(20)
	l.stop()
	s.stop()
}

// TestDrainOutsiders replaces a service by processes that the test starts.
func TestDrainOutsiders(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}}).start()
	l := newLoad(t, s.set.Dir, s.wait("addrs").Addrs)
	for gen := range uint64(testenv.Times(2, 4)) {
		l.run(20)
		o := s.outsider(handoff.Drain)
		o.wait("owner")
		if m := s.wait("committed"); m.Report.Mode != handoff.Drain {
			t.Errorf("report: %+v, want mode drain", m.Report)
		}
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == gen+1 })
		s = o
	}
	l.stop()
	s.stop()
}

// TestDrainKilledUnderLoad kills one of the two at each step, while clients that
// never try again open connections. What fails is at most what the dead process
// had accepted.
func TestDrainKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"predecessor", "successor", "predecessor at commit"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			set := settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: time.Minute, Greet: true}
			if victim == "predecessor at commit" {
				set.Probation = 20 * time.Millisecond
			}
			s := newService(t, set).start()
			addr := s.wait("addrs").Addrs[drainSocket]
			g := newGreeted(t, addr, 16)
			for round := range testenv.Times(2, 8) {
				g.run(200)
				old := s.pid()
				if victim == "predecessor at commit" {
					kind := []string{"committing", "committed"}[round%2]
					s.signal(syscall.SIGUSR2)
					s.waitFor(kind, func(m message) bool { return m.Kind == kind && m.PID == old })
					g.run(int64(round))                    // another moment each time
					_ = syscall.Kill(old, syscall.SIGKILL) // it may have ended by itself
					s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != old })
					continue
				}
				s.plan(plan{At: "probation", How: "wait"})
				s.signal(syscall.SIGUSR2)
				next := s.wait("waits").PID
				// A different moment in each round: the traffic is being turned away.
				g.run(int64(round * 20))
				pid := old
				if victim == "successor" {
					pid = next
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if victim == "successor" {
					s.wait("upgrade-failed")
				} else {
					s.let()
					s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID == next })
				}
				g.run(100)
				_ = os.Remove(filepath.Join(s.set.Dir, "go"))
			}
			g.stop()
			t.Logf("%d connections, %d failed that were accepted, %d that were not", g.asked.Load(), g.accepted.Load(), g.lost.Load())
			if got := g.lost.Load(); got > 0 {
				t.Errorf("%d connections of %d are lost that the dead process had not accepted", got, g.asked.Load())
			}
		})
	}
}

// TestDrainShards changes the number of members with each version, and kills
// every other predecessor in probation.
func TestDrainShards(t *testing.T) {
	t.Parallel()
	addr := "127.66.8.6:" + freePort(t)
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp " + addr, "tcp " + addr, "tcp " + addr}, Probation: 100 * time.Millisecond, Greet: true}).start()
	g := newGreeted(t, addr, 4)
	numbers := []int{1, 4, 2, 2, 5, 3}
	for round, shards := range numbers[:testenv.Times(3, len(numbers))] {
		g.run(100)
		old, before := s.pid(), listeners(t, addr)
		p := plan{Sockets: slices.Repeat([]string{"tcp " + addr}, shards)}
		kill := round%2 == 1
		if kill {
			p.At, p.How = "probation", "wait"
		}
		s.plan(p)
		s.signal(syscall.SIGUSR2)
		if kill {
			s.wait("waits")
			if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s.let()
		}
		s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID != old })
		s.drained(addr, shards, before)
		_ = os.Remove(filepath.Join(s.set.Dir, "go"))
	}
	g.run(100)
	g.stop()
	t.Logf("%d connections, %d failed that were accepted, %d that were not", g.asked.Load(), g.accepted.Load(), g.lost.Load())
	if got := g.lost.Load(); got > 0 {
		t.Errorf("%d connections of %d are lost that no dead process had accepted", got, g.asked.Load())
	}
	s.stop()
}

// greeting returns the process that accepts a new connection.
func greeting(addr string) (int, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

// greeted is a load that knows when a connection was accepted.
type greeted struct {
	askers
	accepted, lost atomic.Int64
}

func newGreeted(tb testing.TB, addr string, clients int) *greeted {
	g := &greeted{askers: newAskers(tb)}
	for range clients {
		g.wg.Go(func() { g.loop(addr) }) // ends with stop
	}
	tb.Cleanup(g.stop)
	return g
}

func (g *greeted) loop(addr string) {
	for {
		select {
		case <-g.quit:
			return
		default:
			g.once(addr)
		}
	}
}

func (g *greeted) once(addr string) {
	defer g.asked.Add(1)
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		g.lost.Add(1)
		g.tb.Logf("dial: %v", err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // an error shows below
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); errors.Is(err, io.EOF) {
		// It was accepted: the kernel ends what a killed process had accepted by a
		// FIN, as long as nothing is unread, and resets what was queued.
		g.accepted.Add(1)
		return
	} else if err != nil {
		g.lost.Add(1)
		g.tb.Logf("greeting: %v", err)
		return
	}
	_, err = fmt.Fprintln(c, "x")
	if err == nil {
		_, err = r.ReadString('\n')
	}
	if err != nil {
		g.accepted.Add(1)
	}
}
