package reuseport_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// collector answers datagrams on all members.
type collector struct {
	mu   sync.Mutex
	from map[netip.AddrPort]map[*reuseport.PacketConn]bool
}

func newCollector() *collector {
	return &collector{from: make(map[netip.AddrPort]map[*reuseport.PacketConn]bool)}
}

func (c *collector) serve(p *reuseport.PacketConn) {
	b := make([]byte, 100)
	for {
		n, from, err := p.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n != 8 {
			continue // another group of this process looks for its sockets
		}
		c.mu.Lock()
		if c.from[from] == nil {
			c.from[from] = make(map[*reuseport.PacketConn]bool)
		}
		c.from[from][p] = true
		c.mu.Unlock()
		_, _ = p.WriteToUDPAddrPort(b[:n], from) // the client notices
	}
}

// flows sends numbered datagrams on n sockets, each of which waits for its
// answer, until end. It returns how many were sent and how many got none.
func flows(t *testing.T, network, address string, n int) (sent *atomic.Int64, end func() (lost int64)) {
	t.Helper()
	sent = new(atomic.Int64)
	var lost atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range n {
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { // ends with stop
			defer conn.Close()
			b := make([]byte, 8)
			for i := uint64(0); !stop.Load(); i++ {
				sent.Add(1)
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, i)); err != nil {
					t.Error(err)
					return
				}
				if _, err := conn.Read(b); err != nil || binary.BigEndian.Uint64(b) != i {
					lost.Add(1)
				}
			}
		})
	}
	return sent, func() int64 {
		stop.Store(true)
		wg.Wait()
		return lost.Load()
	}
}

func packetGroup(t *testing.T, c *collector, network, address string, n int) *reuseport.PacketGroup {
	t.Helper()
	g, err := reuseport.ListenPacketGroup(testContext(t), network, address, &reuseport.Config{Members: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	for _, p := range g.Members() {
		go c.serve(p)
	}
	return g
}

// Members of one process and of others leave, one after another: each datagram
// is read once.
func TestDrainUDP(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, network, listen, dial string }{
		{"IPv4", "udp4", "127.66.36.1:0", "127.66.36.1"},
		{"IPv4 any", "udp4", "0.0.0.0:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
		{"dual-stack by IPv4", "udp", "[::]:0", "127.0.0.1"},
		{"dual-stack by IPv6", "udp", "[::]:0", "::1"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			c := newCollector()
			g := packetGroup(t, c, f.network, f.listen, 3)
			local := g.Members()[0].LocalAddr().(*net.UDPAddr)
			sent, end := flows(t, f.network, net.JoinHostPort(f.dial, strconv.Itoa(local.Port)), 6)
			other := packetGroup(t, c, f.network, local.String(), 2)
			for _, p := range g.Members()[:2] {
				if r, err := p.Drain(ctx); err != nil || r.LossPossible || r.Strategy != reuseport.StrategySteer {
					t.Errorf("Drain = %+v, %v", r, err)
				}
			}
			if r, err := other.Drain(ctx); err != nil || r.LossPossible || r.Members != 2 {
				t.Errorf("Drain of the others = %+v, %v", r, err)
			}
			if lost := end(); lost > 0 {
				t.Errorf("%d of %d datagrams got no answer", lost, sent.Load())
			}
		})
	}
}

// Old sockets leave in favour of an own one, which loses no datagram.
func TestMoveUDP(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, network, listen string }{
		{"IPv4", "udp4", "127.66.36.5:0"},
		{"IPv6", "udp6", "[::1]:0"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			c := newCollector()
			own := packetGroup(t, c, f.network, f.listen, 1).Members()[0]
			address := own.LocalAddr().String()
			sent, end := flows(t, f.network, address, 6)
			for range 20 {
				var leaving []reuseport.Leaving
				for range 2 {
					p := packetGroup(t, c, f.network, address, 1).Members()[0]
					leaving = append(leaving, reuseport.Leaving{Conn: p, Close: p.Close})
				}
				from := sent.Load()
				waitFor(t, func() bool { return sent.Load() > from+20 })
				r, err := reuseport.Move(ctx, []syscall.Conn{own}, leaving)
				if err != nil || r.LossPossible || r.Strategy != reuseport.StrategySteer || r.Members != len(leaving) {
					t.Errorf("Move = %+v, %v", r, err)
				}
			}
			if lost := end(); lost > 0 {
				t.Errorf("%d of %d datagrams got no answer", lost, sent.Load())
			}
		})
	}
}

// A reader that has not come back may be about to answer from the socket: Drain
// gives it time, but not for ever, and not longer than its caller has.
func TestDrainUDPAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		returns bool // the reader does
		limit   time.Duration
	}{
		{"returns", true, 30 * time.Second},
		{"never returns", false, 30 * time.Second},
		{"limit", false, 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, err := reuseport.ListenPacketGroup(testContext(t), "udp4", "127.66.37.1:0", &reuseport.Config{Members: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			client, err := net.Dial("udp4", g.Members()[0].LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			// Whichever member it comes to leaves.
			type read struct {
				p    *reuseport.PacketConn
				from netip.AddrPort
			}
			first, back := make(chan read, 2), make(chan struct{})
			for _, p := range g.Members() {
				go func() { // ends with p
					b := make([]byte, 100)
					_, from, err := p.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					first <- read{p, from}
					<-back
					_, _, _ = p.ReadFromUDPAddrPort(b)
				}()
			}
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			r := <-first
			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			defer cancel()
			if tt.returns {
				// Later than a drain that doesn't wait would close it.
				time.AfterFunc(300*time.Millisecond, func() {
					if _, err := r.p.WriteToUDPAddrPort([]byte("y"), r.from); err != nil {
						t.Errorf("the answer: %v", err)
					}
					close(back)
				})
			} else {
				defer close(back)
			}
			report, err := r.p.Drain(ctx)
			if err != nil || report.Left != 0 || report.LossPossible {
				t.Errorf("Drain = %+v, %v, want nothing left", report, err)
			}
			if least := min(time.Second, tt.limit); !tt.returns && report.Duration < least {
				t.Errorf("Drain took %v, want at least %v", report.Duration, least)
			}
			if tt.returns {
				_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := client.Read(make([]byte, 1)); err != nil {
					t.Errorf("no answer: %v", err)
				}
			}
		})
	}
}

// A read that has its datagram and has not returned is distinguished from one that waits:
// the thread may have lost its turn. The deadlines of the user are left alone.
func TestReadBarrier(t *testing.T) {
	t.Parallel()
	p, err := reuseport.ListenPacket(testContext(t), "udp4", "127.66.37.2:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in, hold, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_ = p.Receive(func() error { close(in); <-hold; return nil }) // it is given nil
		_, _, err := p.ReadFrom(make([]byte, 1))
		ended <- err
	}()
	<-in
	for range 100 {
		if !p.Answering() {
			t.Fatal("no reader is missing, while one has a datagram in hand")
		}
	}
	close(hold)
	waitFor(t, func() bool { return !p.Answering() })
	deadline := time.Now().Add(100 * time.Millisecond)
	if err := p.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	for range 20 { // each calls the reader out, and none ends its read
		waitFor(t, func() bool { return !p.Answering() || time.Now().After(deadline) })
		p.Dismiss()
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(deadline) {
				t.Fatalf("ReadFrom() = %v, before its deadline: %t", err, time.Now().Before(deadline))
			}
			return
		case <-time.After(time.Millisecond): // a moment for a wrong end
		}
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(deadline) {
		t.Errorf("ReadFrom() = %v, before its deadline: %t", err, time.Now().Before(deadline))
	}
}

// While no member joins or leaves, a flow has one member, whatever the steering.
func TestUDPFlowsStay(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newCollector()
	g := packetGroup(t, c, "udp4", "127.66.36.2:0", 4)
	address := g.Members()[0].LocalAddr().String()
	for _, s := range []reuseport.Steering{
		reuseport.Hash(), reuseport.Away(g.Members()[1]), reuseport.Weights(1, 0, 2, 3),
	} {
		if err := g.Steer(ctx, s); err != nil {
			t.Fatalf("Steer(%v): %v", s, err)
		}
		c.mu.Lock()
		clear(c.from)
		c.mu.Unlock()
		sent, end := flows(t, "udp4", address, 40)
		waitFor(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return sent.Load() > 1000 && len(c.from) == 40
		})
		if lost := end(); lost > 0 {
			t.Errorf("Steer(%v): %d datagrams got no answer", s, lost)
		}
		c.mu.Lock()
		used := make(map[*reuseport.PacketConn]bool)
		for from, members := range c.from {
			if len(members) != 1 {
				t.Errorf("Steer(%v): the flow from %v came to %d members", s, from, len(members))
			}
			for m := range members {
				used[m] = true
			}
		}
		if len(used) < 3 || s.String() != "hash" && used[g.Members()[1]] {
			t.Errorf("Steer(%v): %d members were used by %d flows, the one to leave out %t", s, len(used), len(c.from), used[g.Members()[1]])
		}
		c.mu.Unlock()
	}
}

// Plain Close loses what is unread: that is the control of TestDrainUDP.
func TestCloseUDPLoses(t *testing.T) {
	t.Parallel()
	g, err := reuseport.ListenPacketGroup(testContext(t), "udp4", "127.66.36.3:0", &reuseport.Config{Members: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for range 50 {
		conn, err := net.Dial("udp4", g.Members()[0].LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	stay := g.Members()[1]
	if err := g.Members()[0].Close(); err != nil {
		t.Fatal(err)
	}
	// All that there is, is there: the loopback interface doesn't wait.
	if err := stay.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		if _, _, err := stay.ReadFrom(make([]byte, 1)); err != nil {
			break
		}
		n++
	}
	if n >= 50 {
		t.Errorf("%d of 50 datagrams survived a Close, so TestDrainUDP shows nothing", n)
	}
}

func TestPacketErrors(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	p, err := reuseport.ListenPacket(ctx, "udp4", "127.66.36.4:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.ListenPacket("udp4", "127.66.36.4:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := reuseport.ListenPacket(ctx, "udp4", plain.LocalAddr().String(), nil); !errors.Is(err, reuseport.ErrForeign) {
		t.Errorf("ListenPacket on the address of a plain socket: %v, want ErrForeign", err)
	}
	if _, err := reuseport.ListenPacket(ctx, "tcp", "127.0.0.1:0", nil); err == nil {
		t.Error("ListenPacket on tcp = nil, want an error")
	}
	r, err := p.Drain(ctx)
	if err != nil || !r.Last || !r.LossPossible {
		t.Errorf("Drain of a lone socket = %+v, %v, want Last and LossPossible", r, err)
	}
	if _, _, err := p.ReadFrom(make([]byte, 1)); !isClosed(err) {
		t.Errorf("ReadFrom after Drain: %v, want ErrClosed", err)
	}
	if _, err := p.Drain(ctx); !isClosed(err) {
		t.Errorf("second Drain: %v, want ErrClosed", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close after Drain: %v", err)
	}
}
