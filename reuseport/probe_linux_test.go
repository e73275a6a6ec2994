package reuseport_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// A probe never comes out of Accept: not where the search for it failed, and not
// while its listener is on its way out. A client that gets its port does.
func TestProbeIsNoClient(t *testing.T) {
	for name, lost := range map[string]bool{"found": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			l, err := reuseport.Listen(ctx, "tcp4", "127.0.0.1:0", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			addr, err := l.Probe(ctx, lost)
			if err != nil {
				t.Fatal(err)
			}
			if n := l.Probes(); n != 1 && !lost {
				t.Errorf("%d probes are known to be in the queue, want 1", n)
			}
			l.Drop()
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(addr)}
			client, err := d.DialContext(ctx, "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := client.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Errorf("what came out of Accept is not the client: %v", err)
			}
			if n := l.Probes(); n != 0 {
				t.Errorf("%d probes are known after Accept, want none", n)
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
		})
	}
}

// A member of another process that hangs up at once is no reason to give up
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
				if err := g.Steer(ctx, reuseport.Away(g.Members()[0])); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
