package handoff_test

import (
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// unprivileged is a service in mode Drain whose processes have no privilege, in a
// network namespace where the kernel does not move the queue of a closed listener, and
// clients that never retry.
type unprivileged struct {
	*service
	*greeted
	datagrams, noReply atomic.Int64
}

func newUnprivileged(t *testing.T, probation time.Duration) *unprivileged {
	testenv.Need(t, "netns")
	u := &unprivileged{
		service: newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp 127.0.0.1:0", "udp 127.0.0.1:0"}, Probation: probation, Greet: true}),
		greeted: &greeted{askers: newAskers(t)},
	}
	u.netns = netlab.NewNamespace(t)
	u.netns.Sysctl(t, "net.ipv4.tcp_migrate_req", "0")
	u.startCommand(u.commandAs(65534))
	u.wait("owner")
	addrs := u.wait("addrs").Addrs
	for range 8 {
		u.wg.Go(func() { u.netns.Do(func() { u.loop(addrs[drainSocket]) }) }) // ends with stop
	}
	t.Cleanup(u.greeted.stop)
	return u
}

// askUDP sends datagrams as well, in bursts.
func (u *unprivileged) askUDP(t *testing.T) {
	addr := ""
	for _, m := range u.received() {
		if a, ok := m.Addrs["1 udp 127.0.0.1:0"]; ok {
			addr = a
		}
	}
	for range 2 {
		u.wg.Go(func() { // ends with stop
			u.netns.Do(func() {
				for {
					select {
					case <-u.quit:
						return
					default:
					}
					const burst = 64
					got, err := sendBurst(addr, burst)
					if err != nil {
						t.Logf("%d of %d datagrams are answered: %v", got, burst, err)
					}
					u.datagrams.Add(burst)
					u.noReply.Add(burst - got)
				}
			})
		})
	}
}

// sendBurst sends n datagrams and returns how many answers there are.
func sendBurst(addr string, n int64) (answers int64, err error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for range n {
		if _, err := c.Write([]byte("datagram")); err != nil {
			return 0, err
		}
	}
	for b := make([]byte, 64); answers < n; answers++ {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return answers, err
		}
		if _, err := c.Read(b); err != nil {
			return answers, err
		}
	}
	return answers, nil
}

// noRoom returns how many datagrams the kernel has dropped in the service's network
// namespace because a socket's buffer was full: its reader had no turn.
func (u *unprivileged) noRoom(t *testing.T) int64 {
	t.Helper()
	var text []byte
	var err error
	u.netns.Do(func() { text, err = os.ReadFile("/proc/thread-self/net/snmp") })
	var names, values []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "Udp:" {
			names, values = values, f
		}
	}
	i := slices.Index(names, "RcvbufErrors")
	if err != nil || i < 0 || i >= len(values) {
		t.Fatalf("no RcvbufErrors in net/snmp: %v\n%s", err, text)
	}
	n, err := strconv.ParseInt(values[i], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// check ends the load and checks what it has seen.
func (u *unprivileged) check(t *testing.T) {
	u.greeted.stop()
	noRoom := u.noRoom(t)
	t.Logf("%d connections, %d failed that were accepted, %d that were not; %d datagrams, %d without an answer, %d had no room",
		u.asked.Load(), u.accepted.Load(), u.lost.Load(), u.datagrams.Load(), u.noReply.Load(), noRoom)
	if n := u.lost.Load() + max(0, u.noReply.Load()-noRoom); n > 0 {
		t.Errorf("%d lost", n)
	}
}

// TestDrainUnprivileged upgrades a service whose processes have no privilege,
// under load.
func TestDrainUnprivileged(t *testing.T) {
	t.Parallel()
	u := newUnprivileged(t, 20*time.Millisecond)
	u.askUDP(t)
	for i := range testenv.Times(2, 8) {
		u.run(100)
		u.upgrade()
		u.moved(uint64(i+2), 2)
	}
	u.run(100)
	u.check(t)
	if n := u.accepted.Load(); n > 0 {
		t.Errorf("%d accepted connections failed", n)
	}
}

// TestDrainKilledAtRandom kills a process of an upgrade at any moment from when
// the successor has what it needs to carry on. What fails is at most what the
// dead process had accepted.
func TestDrainKilledAtRandom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		probation time.Duration
		both      bool // either is killed; a successor must not be once it is committed
	}{
		{"before commit", time.Minute, true},
		{"around commit", 20 * time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUnprivileged(t, c.probation)
			for range testenv.Times(2, 6) {
				u.run(100)
				old := u.pid()
				u.signal(syscall.SIGUSR2)
				next := u.waitFor("joined", func(m message) bool { return m.Kind == "joined" && m.PID != old }).PID
				successor := c.both && rand.N(2) == 0
				after := rand.N(60 * time.Millisecond)
				t.Logf("kill after %v, the successor: %t", after, successor)
				<-time.After(after) // any moment is right
				if successor {
					_ = syscall.Kill(next, syscall.SIGKILL) // it is the test's child's
					u.wait("upgrade-failed")
					continue
				}
				_ = syscall.Kill(old, syscall.SIGKILL) // it may have ended by itself
				u.waitFor("owner", func(m message) bool { return m.Kind == "owner" && m.PID == next })
			}
			u.run(100)
			u.check(t)
		})
	}
}
