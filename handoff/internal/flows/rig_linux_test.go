package flows

import (
	"crypto/rand"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// none finds no socket that is bound already.
func none() (syscall.Conn, bool, error) { return nil, false, nil }

// firstSets are those of the first process of an address.
func firstSets(t *testing.T, network, address string, c Choice) (*Sets, *Set) {
	t.Helper()
	testenv.Need(t, "reuseport_bpf")
	testenv.Need(t, "memfd")
	var ss Sets
	s, err := ss.Listen(t.Context(), net.ListenConfig{}, Key{network, address}, c, none)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ss.Close(); err != nil {
			t.Error(err)
		}
	})
	return &ss, s
}

// nextSets are those of a successor: locks of a file know descriptions, not processes.
func nextSets(t *testing.T, of *Sets, c Choice) (*Sets, *Set, error) {
	t.Helper()
	items, err := of.Items()
	if err != nil {
		t.Fatal(err)
	}
	ss := new(Sets)
	t.Cleanup(func() {
		if err := ss.Close(); err != nil {
			t.Error(err)
		}
	})
	ss.Arrive(items)
	left := ss.Left()
	if len(left) != 1 {
		t.Fatalf("%d addresses have arrived, want 1", len(left))
	}
	s, err := ss.Listen(t.Context(), net.ListenConfig{}, Key{left[0].Network, left[0].Address}, c, none)
	return ss, s, err
}

func next(t *testing.T, of *Sets) (*Sets, *Set) {
	t.Helper()
	ss, s, err := nextSets(t, of, Choice{IDs: quicIDs})
	if err != nil {
		t.Fatal(err)
	}
	return ss, s
}

// packetOf is a datagram of a flow of s; of no flow if s is nil.
func packetOf(t *testing.T, s *Set) []byte {
	t.Helper()
	p := make([]byte, 40)
	rand.Read(p)
	p[0] |= 0x80
	p[5] = 8
	if s != nil {
		p[0] &= 0x7f
		if err := s.Mark(p[1:8]); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// send sends a datagram and returns which of the sets got it, or -1.
func send(t *testing.T, c *net.UDPConn, p []byte, sets ...*Set) int {
	t.Helper()
	to := sets[0].Conn().LocalAddr().(*net.UDPAddr)
	if to.IP.IsUnspecified() {
		to = &net.UDPAddr{IP: c.LocalAddr().(*net.UDPAddr).IP, Port: to.Port}
	}
	if _, err := c.WriteTo(p, to); err != nil {
		t.Fatal(err)
	}
	for try := range 2 {
		for i, s := range sets {
			wait := time.Duration(0)
			if try > 0 {
				wait = 100 * time.Millisecond
			}
			if err := s.Conn().SetReadDeadline(time.Now().Add(wait + time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, err := s.Conn().Read(b)
			if err == nil && string(b[:n]) != string(p) {
				t.Errorf("lane %d has got % x", s.lane, b[:n])
			}
			if err == nil {
				return i
			}
		}
	}
	return -1
}

func dialer(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc.(*net.UDPConn)
}
