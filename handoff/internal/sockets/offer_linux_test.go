package sockets_test

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

func dup(t *testing.T, fd int) int {
	t.Helper()
	d, err := fdx.DupFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOfferConn has a blocked Accept, and one at a paused and at a shut gate, return a
// connection of another socket.
func TestOfferConn(t *testing.T) {
	t.Parallel()
	s := sockets.NewTestSocket(t, "tcp", "127.0.0.1:0")
	var wg sync.WaitGroup
	accepted := make(chan net.Conn, 1)
	for _, set := range []func(){s.Open, s.Pause, s.Shut} {
		set()
		wg.Go(func() {
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); { // a shut gate turns it away
				if c, err := s.Listener.Accept(nil); err == nil {
					accepted <- c
					return
				}
			}
			t.Error("no Accept returned the connection")
			close(accepted)
		})
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		if !s.Listener.Offer(a, nil) {
			t.Error("Offer() = false")
		}
		if got := <-accepted; got != a {
			t.Errorf("Accept() = %v, want what was offered", got)
		}
	}
	wg.Wait()
	stop := make(chan struct{})
	close(stop)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if s.Listener.Offer(a, stop) {
		t.Error("Offer() = true, and no process accepts")
	}
	if _, err := s.Listener.Accept(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() after the offer was taken back = %v, want net.ErrClosed", err)
	}
	if n := s.Listener.Accepted(); n != 3 {
		t.Errorf("Accepted() = %d, want 3", n)
	}
}

// TestOfferDatagram has each kind of read return a datagram of another socket, cut off
// as the kernel does.
func TestOfferDatagram(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	s := bind(t, table, sockets.Key{Kind: wire.KindPacket, Network: "udp", Address: "127.0.0.1:0"}, nil)
	table.Open()
	from := netip.MustParseAddrPort("192.0.2.1:7")
	d := sockets.NewDatagram("datagram", "control", unix.MSG_ERRQUEUE, from)
	var wg sync.WaitGroup
	defer wg.Wait()
	p, oob := make([]byte, 4), make([]byte, 16)
	for name, read := range map[string]func() (string, net.Addr, error){
		"ReadFrom": func() (string, net.Addr, error) {
			n, addr, err := s.PacketConn.ReadFrom(p)
			return string(p[:n]), addr, err
		},
		"ReadFromUDPAddrPort": func() (string, net.Addr, error) {
			n, addr, err := s.PacketConn.ReadFromUDPAddrPort(p)
			return string(p[:n]), net.UDPAddrFromAddrPort(addr), err
		},
		"ReadMsgUDP": func() (string, net.Addr, error) {
			n, oobn, flags, addr, err := s.PacketConn.ReadMsgUDP(p, oob)
			if string(oob[:oobn]) != "control" || flags != unix.MSG_ERRQUEUE|unix.MSG_TRUNC {
				t.Errorf("control %q, flags %#x", oob[:oobn], flags)
			}
			return string(p[:n]), addr, err
		},
		"ReadBatch": func() (string, net.Addr, error) {
			ms := []ipv4.Message{{Buffers: [][]byte{p[:1], p[1:]}, OOB: oob}}
			n, err := s.PacketConn.ReadBatch(ms, 0)
			m := &ms[0]
			if n != 1 || string(oob[:m.NN]) != "control" || m.Flags != unix.MSG_ERRQUEUE|unix.MSG_TRUNC {
				t.Errorf("%d datagrams, control %q, flags %#x", n, oob[:m.NN], m.Flags)
			}
			return string(p[:m.N]), m.Addr, err
		},
	} {
		wg.Go(func() {
			if !s.PacketConn.Offer(d, nil) {
				t.Error("Offer() = false")
			}
		})
		if data, addr, err := read(); data != "data" || addr.String() != from.String() || err != nil {
			t.Errorf("%s: %q from %v, %v", name, data, addr, err)
		}
	}
}
