package reuseport_test

import (
	"errors"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// A probe never comes out of an Accept of this process, neither where it is sent
// from nor where another group has members on the address. A queue that is full is
// no hindrance.
func TestProbeIsNoClient(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			g, err := reuseport.ListenGroup(ctx, f.network, f.listen, &reuseport.Config{Members: 2, Backlog: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			all := g.Members()
			for range 2 {
				l, err := reuseport.Listen(ctx, f.network, g.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				all = append(all, l)
			}
			queued := func() (n int) {
				for _, l := range all {
					q, _, err := reuseport.QueueLen(l)
					if err != nil {
						t.Fatal(err)
					}
					n += q
				}
				return n
			}
			const clients = 2 // as many as the queue of one can hold
			if err := g.Steer(ctx, reuseport.Weights(1, 0)); err != nil {
				t.Fatal(err)
			}
			dial(t, f.network, at(all[0], f.dial), clients)
			waitFor(t, func() bool { return queued() == clients })
			for range 3 {
				for _, s := range []reuseport.Steering{reuseport.Away(all[0]), reuseport.CPU()} {
					if err := g.Steer(ctx, s); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n := queued(); n != clients {
				t.Errorf("%d connections are queued, want those of the %d clients", n, clients)
			}
			var took sync.WaitGroup
			for _, l := range all {
				took.Go(func() { // ends with l
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						defer c.Close()
						go answer(c) // ends with c
					}
				})
			}
			if err := exchange(at(all[0], f.dial)); err != nil {
				t.Error(err)
			}
			accepted := func() (n int64) {
				for _, l := range all {
					n += l.Accepted()
				}
				return n
			}
			waitFor(t, func() bool { return accepted() > clients })
			for _, l := range all {
				_ = l.Close()
			}
			took.Wait()
			if n := accepted(); n != clients+1 {
				t.Errorf("%d connections were accepted, want %d", n, clients+1)
			}
		})
	}
}

// The least TTL that a user has set on a listener is kept, and is no hindrance.
func TestProbeKeepsTTL(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.39.4:0", 2)
	for i, least := range []int{0, 64} {
		err := onFD(g.Members()[i], func(fd int) error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, least)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Steer(ctx, reuseport.Away(g.Members()[0])); err != nil {
		t.Fatal(err)
	}
	for i, least := range []int{0, 64} {
		if got := sockopt(t, g.Members()[i], unix.IPPROTO_IP, unix.IP_MINTTL); got != least {
			t.Errorf("the least TTL of member %d is %d, want %d", i, got, least)
		}
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
