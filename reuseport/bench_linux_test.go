package reuseport_test

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// The cost of counting the half-open handshakes of a port, and of the look that
// Drain repeats, with nothing else on the machine and with 100,000 other
// sockets.
func BenchmarkHalfOpen(b *testing.B) {
	for _, others := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			ns, ln := crowded(b, others)
			b.Run("pending of one listener", func(b *testing.B) {
				var look func() (int, error)
				var end func()
				ns.Do(func() {
					var err error
					if look, end, err = reuseport.Pending(ln); err != nil {
						b.Error(err)
					}
				})
				if look == nil {
					return
				}
				defer end()
				for b.Loop() {
					if n, err := look(); n != 10 || err != nil {
						b.Fatalf("pending = %d, %v, want 10", n, err)
					}
				}
			})
			for _, way := range []struct {
				name string
				f    func(*net.TCPListener) (int, error)
			}{
				{"HalfOpen", func(ln *net.TCPListener) (int, error) { return reuseport.HalfOpen(ln) }},
				{"sock_diag", reuseport.ListHalfOpen},
			} {
				b.Run(way.name, func(b *testing.B) {
					ns.Do(func() {
						for b.Loop() {
							if n, err := way.f(ln); n != 10 || err != nil {
								b.Errorf("%s = %d, %v, want 10", way.name, n, err)
							}
						}
					})
				})
			}
		})
	}
}

// crowded returns a listener with 10 half-open handshakes in a namespace with that
// many other sockets: connections that were closed by the client and wait to be
// accepted, which needs no descriptors.
func crowded(b *testing.B, others int) (*netlab.Namespace, *net.TCPListener) {
	b.Helper()
	testenv.Need(b, "netns")
	const each = 5_000 // far below the number of ports for each address
	ns := netlab.NewNamespace(b)
	ns.Sysctl(b, "net.core.somaxconn", "65535")
	var ln *net.TCPListener
	var all []*net.TCPListener
	ns.Do(func() {
		ln = listen(b, "tcp4", "127.0.0.1:0", deferAccept)
		dial(b, "tcp4", ln.Addr().String(), 10)
		for i := range others / each {
			other := listen(b, "tcp4", fmt.Sprintf("127.1.%d.1:0", i))
			all = append(all, other)
			sa := &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(i), 1}, Port: other.Addr().(*net.TCPAddr).Port}
			for range each {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err == nil {
					err = unix.Connect(fd, sa)
					_ = unix.Close(fd) // was never used
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
	for _, other := range all {
		waitFor(b, func() bool {
			n, _, err := reuseport.QueueLen(other)
			return n == each || err != nil
		})
	}
	return ns, ln
}

// Weights come out within a percentage point over 100,000 connections. What it
// reports is the largest distance.
func BenchmarkWeights(b *testing.B) {
	ctx := context.Background()
	for _, percent := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("%d%%", percent), func(b *testing.B) {
			const n = 100_000
			g := group(b, "tcp4", "127.66.38.1:0", 2)
			if err := g.Steer(ctx, reuseport.Weights(percent, 100-percent)); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				first := g.Members()[0]
				before := first.Accepted()
				total := before + g.Members()[1].Accepted()
				for range n {
					c, err := net.Dial("tcp", g.Addr().String())
					if err != nil {
						b.Fatal(err)
					}
					_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
					_ = c.Close()
				}
				waitFor(b, func() bool { return first.Accepted()+g.Members()[1].Accepted() >= total+n })
				got := 100 * float64(first.Accepted()-before) / n
				b.ReportMetric(got, "percent")
				if got < float64(percent)-1 || got > float64(percent)+1 {
					b.Errorf("got %.2f %%, want %d ± 1", got, percent)
				}
			}
		})
	}
}

// Accept of a member beside that of a plain net listener.
func BenchmarkAccept(b *testing.B) {
	for _, kind := range []string{"net", "reuseport"} {
		b.Run(kind, func(b *testing.B) {
			var ln net.Listener = listen(b, "tcp4", "127.66.38.2:0")
			if kind == "reuseport" {
				l, err := reuseport.Listen(context.Background(), "tcp4", "127.66.38.2:0", nil)
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				ln = l
			}
			b.ReportAllocs()
			for b.Loop() {
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				a, err := ln.Accept()
				if err != nil {
					b.Fatal(err)
				}
				_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
				_ = c.Close()
				_ = a.Close()
			}
		})
	}
}

// A drain under load, and how long after the last handshake it closes.
func BenchmarkDrain(b *testing.B) {
	ctx := context.Background()
	g := group(b, "tcp4", "127.66.38.3:0", 2)
	_, end := traffic(b, g.Addr().String(), 8)
	var settle time.Duration
	n := 0
	for b.Loop() {
		l, err := g.Add(ctx)
		if err != nil {
			b.Fatal(err)
		}
		go serveEcho(l)
		r, err := g.Members()[0].Drain(ctx)
		if err != nil || r.LossPossible {
			b.Fatalf("%+v, %v", r, err)
		}
		settle += r.Settle
		n++
	}
	b.ReportMetric(float64(settle.Microseconds())/float64(n), "settle-µs/op")
	if seen := end(); seen.lost() > 0 {
		b.Errorf("lost %v", seen)
	}
}

// A move from one listener to another under load, and how long it takes.
func BenchmarkMove(b *testing.B) {
	old := plainListener(b, "tcp4", "127.66.38.4:0")
	go echoOf(old)
	_, end := traffic(b, old.Addr().String(), 8)
	for b.Loop() {
		own := plainListener(b, "tcp4", old.Addr().String())
		go echoOf(own)
		r, err := reuseport.Move(context.Background(), []syscall.Conn{own}, []reuseport.Leaving{{Conn: old, Close: old.Close}})
		if err != nil || r.LossPossible {
			b.Fatalf("%+v, %v", r, err)
		}
		old = own
	}
	if seen := end(); seen.lost() > 0 {
		b.Errorf("lost %v", seen)
	}
}
