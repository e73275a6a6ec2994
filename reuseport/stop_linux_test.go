package reuseport_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// What is said to keep a listener from queuing, and what it does: to 20
// connections in the queue, to 20 half-open handshakes, and to clients that come
// afterwards. In all cases another member serves.
func TestWhatEndsAListenerReallyDoes(t *testing.T) {
	t.Parallel()
	const n = 20
	kept, lost, some := "kept", "lost", "still chosen"
	for _, c := range []struct {
		name             string
		do               func(l *reuseport.Listener) error
		queued, halfOpen string
		later            string // what new connections to the member do
	}{
		{
			name:   "Close",
			do:     func(l *reuseport.Listener) error { return l.Close() },
			queued: lost, halfOpen: lost, later: "go elsewhere",
		},
		{
			name: "shutdown(SHUT_WR)",
			do: func(l *reuseport.Listener) error {
				return onFD(l, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
			},
			queued: kept, halfOpen: kept, later: some,
		},
		{
			name: "shutdown(SHUT_RD)",
			do: func(l *reuseport.Listener) error {
				return onFD(l, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
			},
			queued: lost, halfOpen: lost, later: "go elsewhere",
		},
		{
			name: "listen(0)",
			do: func(l *reuseport.Listener) error {
				return onFD(l, func(fd int) error { return unix.Listen(fd, 0) })
			},
			queued: kept, halfOpen: "stuck", later: some,
		},
		{
			name: "http.Server.Shutdown",
			do: func(l *reuseport.Listener) error {
				srv := &http.Server{}
				ended := make(chan error)
				gate := &gatedListener{Listener: l, open: make(chan struct{})}
				go func() { ended <- srv.Serve(gate) }()
				<-gate.open // Serve knows its listener
				err := srv.Shutdown(context.Background())
				<-ended
				return err
			},
			queued: lost, halfOpen: lost, later: "go elsewhere",
		},
		{
			name: "Drain",
			do: func(l *reuseport.Listener) error {
				go serveEcho(l)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_, err := l.Drain(ctx)
				return err
			},
			queued: kept, halfOpen: kept, later: "go elsewhere",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, halfOpen := range []bool{false, true} {
				ctx := testContext(t)
				stay := group(t, "tcp4", "127.66.35.1:0", 1)
				l, err := reuseport.Listen(ctx, "tcp4", stay.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
				if halfOpen {
					if err := onFD(l, deferAccept); err != nil {
						t.Fatal(err)
					}
				}
				// All of them come to l.
				if err := stay.Steer(ctx, reuseport.Away(stay.Members()[0])); err != nil {
					t.Fatal(err)
				}
				conns := dial(t, "tcp", stay.Addr().String(), n)
				if err := stay.Steer(ctx, reuseport.Hash()); err != nil {
					t.Fatal(err)
				}
				waitFor(t, func() bool {
					q, _, err := reuseport.QueueLen(l)
					return err != nil || halfOpen || q >= n // and probes of Steer
				})
				want := c.queued
				done := make(chan error, 1)
				go func() { done <- c.do(l) }()
				if halfOpen {
					want = c.halfOpen
					if c.name != "Drain" {
						if err := <-done; err != nil {
							t.Fatal(err)
						}
					}
					for _, nc := range conns {
						_, _ = nc.Write([]byte{1}) // the answer tells
					}
				}
				if c.name != "Drain" || !halfOpen {
					if !halfOpen {
						if err := <-done; err != nil {
							t.Fatal(err)
						}
					}
				} else if err := <-done; err != nil {
					t.Fatal(err)
				}
				if want == "stuck" {
					// The first fills the queue; the others can't enter it.
					waitFor(t, func() bool {
						q, _, err := reuseport.QueueLen(l)
						return err != nil || q > 0
					})
					if half, err := reuseport.HalfOpen(l); half == 0 || err != nil {
						t.Errorf("half-open = %d, %v after data, want some that are stuck", half, err)
					}
					continue
				}
				if want == kept && c.name != "Drain" {
					go serveEcho(l)
				}
				ok := 0
				for _, nc := range conns {
					if !halfOpen {
						if ask(nc) == nil {
							ok++
						}
						continue
					}
					_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
					if _, err := nc.Read(make([]byte, 1)); err == nil {
						ok++
					}
				}
				if wantOK := map[string]int{kept: n, lost: 0}[want]; ok != wantOK {
					t.Errorf("half-open %t: %d of %d survived, want %d", halfOpen, ok, n, wantOK)
				}
				if halfOpen || c.name == "listen(0)" {
					continue
				}
				before := l.Accepted()
				for range 40 {
					if err := exchange(stay.Addr().String()); err != nil {
						t.Errorf("a later connection: %v", err)
					}
				}
				if chosen := l.Accepted() > before; chosen != (c.later == some) {
					t.Errorf("later connections come to the member: %t, want %q", chosen, c.later)
				}
			}
		})
	}
}

// gatedListener signals when Accept was called.
type gatedListener struct {
	net.Listener
	open chan struct{}
}

func (g *gatedListener) Accept() (net.Conn, error) {
	close(g.open)
	return nil, errStopServe
}

var errStopServe = errors.New("stop serving")

func TestStopQueueing(t *testing.T) {
	testenv.Need(t, "netns")
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t, f.network, f.listen)
			address := at(ln, f.dial)
			queued := dial(t, "tcp", address, 5)
			for range 2 { // the second does nothing
				if err := reuseport.StopQueueing(ln); err != nil {
					t.Fatal(err)
				}
			}
			parked := make(chan error, 3)
			for range 3 {
				go func() { parked <- exchange(address) }()
			}
			go serveEcho(ln)
			seen := make(tally)
			askAll(queued, seen)
			if seen.lost() > 0 {
				t.Errorf("queued connections: lost %v, want none", seen)
			}
			select {
			case err := <-parked:
				t.Errorf("a client got through while stopped: %v", err)
			default:
			}
			for range 2 {
				if err := reuseport.ResumeQueueing(ln); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				if err := <-parked; err != nil {
					t.Errorf("a client that waited: %v", err)
				}
			}
		})
	}
}

func TestStopQueueingErrors(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if err := reuseport.StopQueueing(pc.(*net.UDPConn)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("StopQueueing of a UDP socket: %v, want ErrUnsupported", err)
	}
	lc := new(net.ListenConfig)
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tl := ln.(*net.TCPListener)
	if sockopt(t, tl, unix.SOL_SOCKET, unix.SO_PROTOCOL) != unix.IPPROTO_TCP {
		if err := reuseport.StopQueueing(tl); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("StopQueueing of an MPTCP listener: %v, want ErrUnsupported", err)
		}
	}
}

// Another filter stays, also one that is as long as ours, and StopQueueing gives
// an error.
func TestStopQueueingForeignFilter(t *testing.T) {
	testenv.Need(t, "root") // CAP_NET_ADMIN
	t.Parallel()
	ln, err := reuseport.Listen(context.Background(), "tcp4", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	rc, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 8; n++ {
		all := make([]unix.SockFilter, n)
		for i := range all {
			all[i] = unix.SockFilter{Code: unix.BPF_LD | unix.BPF_IMM}
		}
		all[n-1] = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 20}
		if cerr := rc.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(n), Filter: &all[0]})
		}); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if err := reuseport.StopQueueing(ln); !errors.Is(err, fs.ErrExist) {
			t.Errorf("StopQueueing beside a filter of %d instructions: %v, want ErrExist", n, err)
		}
	}
	if err := reuseport.ResumeQueueing(ln); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds it stopped
		if err := reuseport.StopQueueing(ln); err != nil {
			t.Errorf("StopQueueing: %v", err)
		}
	}
}

// anybodyMayFilter reports whether the kernel lets a user without privilege put
// a filter on a TCP socket, as 5.10 does.
func anybodyMayFilter(t *testing.T) bool {
	t.Helper()
	var err error
	netlab.NewNamespace(t).DoAs(65534, func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		all := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 20}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all})
	})
	if err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	return err == nil
}

func TestStopQueueingWithoutPrivilege(t *testing.T) {
	testenv.Need(t, "netns")
	t.Parallel()
	if anybodyMayFilter(t) {
		t.Skip("needs a kernel where a filter on a TCP socket takes CAP_NET_ADMIN")
	}
	ns := netlab.NewNamespace(t)
	ns.DoAs(65534, func() {
		l, err := reuseport.Listen(context.Background(), "tcp4", "127.0.0.1:0", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		if err := reuseport.StopQueueing(l); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("StopQueueing without CAP_NET_ADMIN: %v, want ErrPermission", err)
		}
	})
}

// The last member: with the privilege nothing is lost, and a client that comes meanwhile
// waits for the next listener; without, what was there is served, and the
// report says that more can have been lost.
func TestDrainOfLastMember(t *testing.T) {
	testenv.Need(t, "netns")
	for _, c := range []struct {
		name     string
		uid      int
		strategy reuseport.Strategy
		lossy    bool
	}{
		{"root", 0, reuseport.StrategyStopQueueing, false},
		{"unprivileged", 65534, reuseport.StrategyBestEffort, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.lossy && anybodyMayFilter(t) {
				c.strategy, c.lossy = reuseport.StrategyStopQueueing, false
			}
			ctx := testContext(t)
			ns := netlab.NewNamespace(t)
			var l *reuseport.Listener
			var conns []net.Conn
			var r reuseport.Report
			var err error
			ns.DoAs(c.uid, func() {
				if l, err = reuseport.Listen(ctx, "tcp4", "127.0.0.1:0", nil); err != nil {
					return
				}
				if err = onFD(l, deferAccept); err != nil {
					return
				}
				for range 10 {
					nc, derr := net.Dial("tcp", l.Addr().String())
					if derr != nil {
						err = derr
						return
					}
					conns = append(conns, nc)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, nc := range conns[:5] { // these are queued, the others half-open
				if _, err := nc.Write([]byte{1}); err != nil {
					t.Fatal(err)
				}
			}
			left := make(chan struct{})
			go func() {
				defer close(left)
				ns.DoAs(c.uid, func() { r, err = l.Drain(ctx) })
			}()
			go serveEcho(l)
			for _, nc := range conns[5:] {
				if _, err := nc.Write([]byte{1}); err != nil {
					t.Error(err)
				}
			}
			<-left
			if err != nil || r.Strategy != c.strategy || r.LossPossible != c.lossy || !r.Last || r.Members != 1 {
				t.Errorf("Drain = %+v, %v, want %s", r, err, c.strategy)
			}
			for _, nc := range conns {
				_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := nc.Read(make([]byte, 1)); err != nil {
					t.Errorf("a connection that was there: %v", err)
				}
				_ = nc.Close() // was read
			}
		})
	}
}
