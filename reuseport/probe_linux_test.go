package reuseport_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// A probe never comes out of Accept: not where the search for it failed, and not
// while its listener is on its way out. Until it has come out of the queue nobody
// else gets its port, whom Accept would take for the probe.
func TestProbeIsNoClient(t *testing.T) {
	for name, lost := range map[string]bool{"found": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			probed := func() (*reuseport.Listener, netip.AddrPort) {
				t.Helper()
				l, err := reuseport.Listen(ctx, "tcp4", "127.0.0.1:0", nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
				addr, err := l.Probe(ctx, lost)
				if err != nil {
					t.Fatal(err)
				}
				if canBind(addr) {
					t.Errorf("others can have the port of %v, which is in the queue", addr)
				}
				return l, addr
			}

			l, addr := probed()
			l.Drop()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.RemoteAddr().String() != client.LocalAddr().String() {
				t.Errorf("Accept returned %v, want %v; the probe is %v", c.RemoteAddr(), client.LocalAddr(), addr)
			}
			if n := l.Probes(); n != 0 || !canBind(addr) {
				t.Errorf("%d probes known after Accept, port free: %v; want none, and the port free", n, canBind(addr))
			}

			l, addr = probed()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if n := l.Probes(); n != 0 || !canBind(addr) {
				t.Errorf("%d probes known after Close, port free: %v; want none, and the port free", n, canBind(addr))
			}
		})
	}
}

// What one group probes does not come out of another group's Accept either, where
// both have members on one address.
func TestProbeIsNoClientOfOtherGroup(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			a, err := reuseport.Listen(ctx, f.network, f.listen, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			var others []*reuseport.Listener
			for range 3 {
				l, err := reuseport.Listen(ctx, f.network, a.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				others = append(others, l)
			}
			if err := a.Group().Steer(ctx, reuseport.Away(a)); err != nil {
				t.Fatal(err)
			}
			queued := func() (n int) {
				for _, l := range others {
					q, _, err := reuseport.QueueLen(l)
					if err != nil {
						t.Fatal(err)
					}
					n += q
				}
				return n
			}
			if n := queued(); n < len(others) {
				t.Errorf("%d probes in the queues of the other groups, want one for each at least", n)
			}
			client := dial(t, f.network, at(a, f.dial), 1)[0].LocalAddr().String()
			var wg sync.WaitGroup
			came := make(chan string, 100)
			for _, l := range others {
				wg.Go(func() { // ends with l
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						came <- c.RemoteAddr().String()
						_ = c.Close() // that it came is all
					}
				})
			}
			waitFor(t, func() bool { return queued() == 0 })
			for _, l := range others {
				_ = l.Close() // it is empty
			}
			wg.Wait()
			close(came)
			var all []string
			for addr := range came {
				all = append(all, addr)
			}
			if len(all) != 1 || all[0] != client {
				t.Errorf("Accept returned %v, want the client %s alone", all, client)
			}
			_ = a.Close() // nobody accepts from it
			if n := a.Probes(); n != 0 {
				t.Errorf("%d probes are known to the end, want none", n)
			}
		})
	}
}

// A probe that Accept has taken is reset, which connect(2) can be the first to
// say on a busy machine. Who else resets it is a member of somebody else's.
func TestProbeReset(t *testing.T) {
	t.Parallel()
	for _, byAccept := range []bool{true, false} {
		if ours, err := reuseport.ProbeReset(byAccept); err != nil || ours != byAccept {
			t.Errorf("reset by Accept %t: ours %t, %v", byAccept, ours, err)
		}
	}
}

// A member of somebody else's that hangs up at once is no reason to give up
// steering.
func TestProbeHungUp(t *testing.T) {
	for name, hangUp := range map[string]func(*net.TCPConn) error{
		"close": (*net.TCPConn).Close,
		"reset": func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			g := group(t, "tcp4", "127.66.39.1:0", 2)
			lc := net.ListenConfig{Control: reuseport.Control(nil)}
			lc.SetMultipathTCP(false)
			ln, err := lc.Listen(ctx, "tcp4", g.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() { // ends with ln
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					_ = hangUp(c.(*net.TCPConn))
				}
			}()
			for range 200 {
				if r, err := g.Quiesce(ctx, g.Members()[0]); err != nil || r.Strategy != reuseport.StrategySteer || r.LossPossible {
					t.Fatalf("Quiesce: %+v, %v", r, err)
				}
			}
		})
	}
}

// canBind reports whether a socket can be bound to addr.
func canBind(addr netip.AddrPort) bool {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}) == nil
}
