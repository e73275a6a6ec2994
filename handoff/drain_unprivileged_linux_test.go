package handoff_test

import (
	"math/rand/v2"
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

// askUDP asks over UDP as well.
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
					if _, err := ask("udp", addr); err != nil {
						u.noReply.Add(1)
						t.Logf("datagram: %v", err)
					}
					u.datagrams.Add(1)
				}
			})
		})
	}
}

// check ends the load and checks what it has seen.
func (u *unprivileged) check(t *testing.T) {
	u.greeted.stop()
	t.Logf("%d connections, %d failed that were accepted, %d that were not; %d datagrams, %d without an answer",
		u.asked.Load(), u.accepted.Load(), u.lost.Load(), u.datagrams.Load(), u.noReply.Load())
	if n := u.lost.Load() + u.noReply.Load(); n > 0 {
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
		u.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
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
