package handoff_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// handoffModes are those in which sockets are stored.
func handoffModes(t *testing.T, f func(t *testing.T, mode handoff.Mode)) {
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			f(t, mode)
		})
	}
}

// waiting are clients that connect while no process serves.
type waiting struct {
	tb    testing.TB
	conns []net.Conn
}

// dial connects a client, or sends a datagram: neither is refused.
func (w *waiting) dial(network, addr string) {
	w.tb.Helper()
	c, err := net.Dial(network, addr)
	if err == nil {
		w.conns = append(w.conns, c)
		_, err = fmt.Fprintln(c, "waiting")
	}
	if err != nil {
		w.tb.Errorf("%s %s, while no process serves: %v", network, addr, err)
	}
}

// served wants each answered.
func (w *waiting) served() {
	w.tb.Helper()
	for _, c := range w.conns {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			w.tb.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if got := strings.TrimSpace(string(buf[:n])); err != nil || !strings.HasSuffix(got, " waiting") {
			w.tb.Errorf("%s %s: a client from before the start got %q, %v", c.RemoteAddr().Network(), c.RemoteAddr(), got, err)
		}
		_ = c.Close()
	}
}

// TestStoreCrash kills a service under load, again and again. No client is refused,
// those that connect meanwhile are served, and each socket is the same as before.
func TestStoreCrash(t *testing.T) {
	handoffModes(t, func(t *testing.T, mode handoff.Mode) {
		k := newKeeper(t, 6)
		path := filepath.Join(testenv.ShortDir(t), "u:1")
		set := settings{Mode: mode, Sockets: []string{
			"tcp 127.0.0.1:0", "tcp 127.0.0.1:0", "api=tcp 127.0.0.1:0", "udp 127.0.0.1:0", "unix " + path, "unix @" + path,
		}}
		s := k.start(newService(t, set))
		addrs := s.wait("addrs").Addrs
		names := k.awaitSize(len(set.Sockets))

		var refused, served, lost atomic.Int64
		stop := make(chan struct{})
		var clients sync.WaitGroup
		halt := sync.OnceFunc(func() { close(stop); clients.Wait() })
		t.Cleanup(halt)
		for range 4 {
			clients.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					spec := set.Sockets[[]int{0, 1, 2, 4}[i%4]]
					network := strings.Fields(strings.TrimPrefix(spec, "api="))[0]
					switch _, err := ask(network, addrs[fmt.Sprintf("%d %s", slices.Index(set.Sockets, spec), spec)]); {
					case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
						refused.Add(1)
						t.Errorf("refused: %v", err)
						return
					case err != nil:
						lost.Add(1) // it was being served
					default:
						served.Add(1)
					}
				}
			})
		}
		crashes := testenv.Times(1, 3)
		for range crashes {
			before := served.Load()
			eventually(t, "clients are served", func() bool { return served.Load() > before+50 || t.Failed() })
			k.crash(s)
			w := &waiting{tb: t}
			for i, spec := range set.Sockets {
				network := strings.Fields(strings.TrimPrefix(spec, "api="))[0]
				for range 5 {
					w.dial(network, addrs[fmt.Sprintf("%d %s", i, spec)])
				}
			}
			s = k.again(s)
			if diff := cmp.Diff(addrs, s.wait("addrs").Addrs); diff != "" {
				t.Errorf("addresses after a crash (-before +after):\n%s", diff)
			}
			w.served()
		}
		halt()
		if got := k.awaitSize(len(set.Sockets)); !slices.Equal(got, names) {
			t.Errorf("in the store after %d crashes: %q, want %q", crashes, got, names)
		}
		// Four clients are in service at most when a process dies.
		if n := lost.Load(); n > int64(crashes*4) {
			t.Errorf("%d clients were not served, of which a crash explains %d", n, crashes*4)
		}
		t.Logf("crashes=%d served=%d in flight=%d refused=%d", crashes, served.Load(), lost.Load(), refused.Load())
		if n := k.Ignored(); n > 0 {
			t.Errorf("systemd has ignored %d messages of other processes than the main one", n)
		}
		s.stop()
		k.EmptyStore()
		refuses(t, addrs["0 "+set.Sockets[0]])
		// The path is left, and does not keep a new socket from being bound.
		again := k.again(s)
		if gen, err := ask("unix", path); err != nil || gen != 1 {
			t.Errorf("unix socket after a stop for good: generation %d, %v", gen, err)
		}
		again.stop()
	})
}

// refuses waits until no process has the address: a process closes its descriptors a
// moment after it has ended for all others.
func refuses(tb testing.TB, addr string) {
	tb.Helper()
	eventually(tb, "no process has "+addr, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// TestStoreRestart stops a service cleanly, with a client in service, and starts
// it.
func TestStoreRestart(t *testing.T) {
	handoffModes(t, func(t *testing.T, mode handoff.Mode) {
		k := newKeeper(t, 8)
		path := filepath.Join(testenv.ShortDir(t), "u")
		set := settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0", "unix " + path, "unixgram " + path + "g", "udp 127.0.0.1:0"}}
		s := k.start(newService(t, set))
		addrs := s.wait("addrs").Addrs
		tcp, udp := addrs["0 tcp 127.0.0.1:0"], addrs["3 udp 127.0.0.1:0"]
		k.awaitSize(4)
		// Upgraded, or not, is the same.
		s.upgrade()
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })
		_, changes := k.Stored()
		s.stop()
		w := &waiting{tb: t}
		w.dial("tcp", tcp)
		w.dial("unix", path)
		w.dial("udp", udp)
		if _, err := os.Lstat(path + "g"); err != nil {
			t.Errorf("path of a datagram socket in the store: %v", err)
		}
		if names, now := k.Stored(); now != changes {
			t.Errorf("an upgrade and a stop have changed the store: %q", names)
		}
		s = k.again(s)
		if diff := cmp.Diff(addrs, s.wait("addrs").Addrs); diff != "" {
			t.Errorf("addresses after a restart (-before +after):\n%s", diff)
		}
		w.served()
		s.stop()
	})
}

// TestStoreUpgrade has the store follow the sockets from one version to the next,
// and stay as it is while an upgrade is under way, or fails.
func TestStoreUpgrade(t *testing.T) {
	handoffModes(t, func(t *testing.T, mode handoff.Mode) {
		k := newKeeper(t, 8)
		dir := testenv.ShortDir(t)
		dropped, added := filepath.Join(dir, "dropped"), filepath.Join(dir, "added")
		set := settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0", "tcp localhost:0", "api=tcp 127.0.0.1:0", "unix " + dropped, "udp 127.0.0.1:0"}}
		s := k.start(newService(t, set))
		addrs := s.wait("addrs").Addrs
		first, second := addrs["0 tcp 127.0.0.1:0"], addrs["1 tcp localhost:0"]
		names := k.awaitSize(5)

		// One that is rolled back.
		next := []string{"tcp 127.0.0.1:0", "tcp " + second, "api=tcp 127.0.0.1:1", "unix " + added}
		_, changes := k.Stored()
		s.plan(plan{At: "probation", How: "hold", Sockets: next})
		s.signal(syscall.SIGUSR2)
		s.wait("paused")
		s.wait("waits")
		s.signal(syscall.SIGUSR1)
		s.wait("quit")
		s.let()
		s.wait("upgrade-failed")
		if got, now := k.Stored(); now != changes || !slices.Equal(got, names) {
			t.Errorf("in the store after a rollback: %q, want %q and no change", got, names)
		}
		s.waitFor("exit of the successor", func(m message) bool { return m.Kind == "exit" })

		// One that is committed: of the sockets one is asked for by another address,
		// one by its name, two are dropped and one is new.
		s.plan(plan{At: "probation", Sockets: next})
		for done := false; !done; {
			s.signal(syscall.SIGUSR2)
			m := s.waitFor("committed", func(m message) bool { return m.Kind == "committed" || m.Kind == "upgrade-failed" })
			done = m.Kind == "committed"
			if !done && !strings.Contains(m.Err, "upgrade in progress") {
				t.Fatal(m.Err) // tableflip may see late that its child has ended
			}
		}
		stored(s)
		got := k.AwaitStored("the sockets of the next version, and no probe: the update is over", func(names []string) bool {
			all := strings.Join(names, " ")
			return len(names) == 4 && strings.Contains(all, "added") && strings.Contains(all, "|api|") && !strings.Contains(all, "baton.probe")
		})
		if slices.ContainsFunc(got, func(n string) bool { return strings.Contains(n, "dropped") || strings.Contains(n, "packet") }) {
			t.Errorf("in the store: %q, of which one was dropped", got)
		}
		if _, err := net.Dial("unix", dropped); err == nil {
			t.Error("a socket that was dropped is still in the store")
		}
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == 1 })

		k.crash(s)
		w := &waiting{tb: t}
		w.dial("tcp", first)
		w.dial("tcp", second)
		w.dial("unix", added)
		w.dial("tcp", addrs["2 api=tcp 127.0.0.1:0"])
		after := newService(t, s.set)
		after.plan(plan{At: "probation", Sockets: next})
		k.start(after)
		w.served()
		if got := k.awaitSize(4); k.Ignored() > 0 {
			t.Errorf("systemd has ignored %d messages; in the store: %q", k.Ignored(), got)
		}
		after.stop()
	})
}
