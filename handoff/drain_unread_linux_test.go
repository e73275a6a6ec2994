package handoff_test

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// sent is a datagram that waits for its answer.
type sent struct {
	conn net.Conn
	word string
}

// sendMany sends n datagrams, each from a socket of its own.
func sendMany(tb testing.TB, addr string, n int) []sent {
	tb.Helper()
	all := make([]sent, n)
	for i := range all {
		c, err := net.Dial("udp", addr)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = c.Close() })
		all[i] = sent{c, fmt.Sprintf("datagram-%d", i)}
		if _, err := fmt.Fprint(c, all[i].word); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

// mustAnswerAll checks that each of them is answered, by one generation.
func mustAnswerAll(tb testing.TB, all []sent, gen uint64) {
	tb.Helper()
	lost := 0
	deadline := time.Now().Add(patience)
	for _, d := range all {
		if err := d.conn.SetDeadline(deadline); err != nil {
			tb.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := d.conn.Read(buf)
		if want := fmt.Sprintf("%d %s", gen, d.word); err != nil || string(buf[:n]) != want {
			lost++
			tb.Logf("datagram: answer %q, %v, want %q", buf[:n], err, want)
		}
	}
	if lost > 0 {
		tb.Errorf("%d of %d datagrams are lost", lost, len(all))
	}
}

// aloneUDP is alone for datagrams.
func (s *service) aloneUDP(addr string, gen uint64) {
	s.tb.Helper()
	eventually(s.tb, fmt.Sprintf("generation %d gets datagrams alone", gen), func() bool {
		for range 16 {
			if got, err := ask("udp", addr); err != nil || got != gen {
				return false
			}
		}
		return true
	})
}

// How far the successor is when TestDrainKilledUnread kills one of the two.
const (
	atListening = "listening"
	atProbation = "probation"
)

// TestDrainKilledUnread kills either process while connections and datagrams
// wait in the sockets: the process that is left serves them all.
func TestDrainKilledUnread(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ at, victim string }{
		{atListening, "predecessor"},
		{atProbation, "predecessor"},
		{atProbation, "successor"},
	} {
		for _, deferred := range []bool{false, true} {
			name := c.victim + "/" + c.at + "/queued"
			if deferred {
				name = c.victim + "/" + c.at + "/half-open"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				killUnread(t, c.at, c.victim == "successor", deferred)
			})
		}
	}
}

func killUnread(t *testing.T, at string, successor, deferred bool) {
	s := newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}, Probation: time.Minute, Defer: deferred}).start()
	addrs := s.wait("addrs").Addrs
	tcp, udp := addrs[drainSocket], addrs["1 udp 127.0.0.1:0"]
	old := s.pid()
	s.plan(plan{At: at, How: "wait"})
	s.signal(syscall.SIGUSR2)
	next := s.wait("waits").PID
	if at == atProbation {
		s.alone(tcp, 2)
		s.aloneUDP(udp, 2)
	}
	stopProcess(t, old)
	stopProcess(t, next)
	conns, datagrams := dialMany(t, tcp, 30), sendMany(t, udp, 30)
	victim, other, gen := old, next, uint64(2)
	if successor {
		victim, other, gen = next, old, 1
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.let()
	if err := syscall.Kill(other, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if successor {
		if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, "ErrSuccessorDied") {
			t.Errorf("upgrade: %v %s, want ErrSuccessorDied", m.Is, m.Err)
		}
	} else {
		s.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID == next })
	}
	if got := answered(t, "waiting", conns); got[gen] != len(conns) {
		t.Errorf("generations that answered: %v, want %d of %d", got, len(conns), gen)
	}
	mustAnswerAll(t, datagrams, gen)
	if !successor {
		s.moved(2, 2)
	}
	if n := len(listeners(t, tcp)); n != 1 {
		t.Errorf("%d sockets listen after that, want 1", n)
	}
	s.upgradeNext(tcp)
}
