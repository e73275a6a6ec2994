package flows

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestSwitch goes through an upgrade that is rolled back and one that is committed: each
// flow stays with the process that it began with, and new ones are the current process's.
func TestSwitch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ network, address, client string }{
		{"udp4", "127.0.0.1:0", "127.0.0.1:0"},
		{"udp", "127.0.0.1:0", "127.0.0.1:0"},
		{"udp6", "[::1]:0", "[::1]:0"},
		{"udp", ":0", "127.0.0.1:0"},
		{"udp", ":0", "[::1]:0"},
	} {
		t.Run(c.network+" "+c.address+" "+c.client, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(c.client, "::") {
				testenv.Need(t, "ipv6")
			}
			asw, a := firstSets(t, c.network, c.address, Choice{IDs: quicIDs})
			client := dialer(t, "udp", c.client)
			check := func(when string, current *Set, sets ...*Set) {
				t.Helper()
				for i, s := range sets {
					if got := send(t, client, packetOf(t, s), sets...); got != i {
						t.Errorf("%s: a flow of lane %d came to set %d", when, s.lane, got)
					}
				}
				if got := send(t, client, packetOf(t, nil), sets...); got < 0 || sets[got] != current {
					t.Errorf("%s: a new flow came to set %d", when, got)
				}
			}
			check("alone", a, a)
			_, b := next(t, asw)
			check("before Ready", a, a) // b has no flow yet
			if err := b.Serve(); err != nil {
				t.Fatal(err)
			}
			check("in probation", b, b, a)
			if err := a.Serve(); err != nil {
				t.Fatal(err)
			}
			if err := b.Undo(); err != nil { // to no effect
				t.Fatal(err)
			}
			check("rolled back", a, a, b)
			csw, c := next(t, asw)
			if c.lane == a.lane || c.lane == b.lane {
				t.Fatalf("lane %d is that of another process", c.lane)
			}
			if err := c.Serve(); err != nil {
				t.Fatal(err)
			}
			check("committed", c, c, a, b)
			if u := c.blind; u != "" {
				t.Errorf("not verified: %s", u)
			}
			// The current process answers for the flows of one that has ended.
			old := packetOf(t, a)
			if err := asw.Close(); err != nil {
				t.Fatal(err)
			}
			for limit := time.Now().Add(10 * time.Second); send(t, client, old, c, b) != 0; {
				if time.Now().After(limit) {
					t.Fatal("the flow of a process that has ended does not come to the current one")
				}
			}
			if got := csw.Status()[0].Used; len(got) != 2 {
				t.Errorf("lanes %v are used, want 2", got)
			}
		})
	}
}

// TestUndo has a successor give back what it has taken, as it does if the predecessor is
// a process that knows nothing of lanes, or can't say so any more.
func TestUndo(t *testing.T) {
	t.Parallel()
	ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	bss, b := next(t, ass)
	client := dialer(t, "udp", "127.0.0.1:0")
	if err := errors.Join(bss.Serve(), bss.Undo()); err != nil {
		t.Fatal(err)
	}
	if got := send(t, client, packetOf(t, nil), a, b); got != 0 {
		t.Errorf("a new flow came to set %d, want the predecessor's", got)
	}
	if got := send(t, client, packetOf(t, b), a, b); got != 1 {
		t.Errorf("a flow of the successor came to set %d", got)
	}
}

// TestRoom fills all lanes.
func TestRoom(t *testing.T) {
	t.Parallel()
	ss, _ := firstSets(t, "udp", "127.0.0.1:0", Choice{Lanes: MinLanes, IDs: quicIDs})
	second, _ := next(t, ss)
	if err := second.Room(); err != nil {
		t.Errorf("Room() with a lane left = %v", err)
	}
	third, _ := next(t, second)
	for _, s := range []*Sets{second, third} {
		if err := s.Room(); !errors.Is(err, failure.InProgress) || !strings.Contains(err.Error(), "all of the 3 lanes") {
			t.Errorf("Room() without a lane = %v, want ErrInProgress", err)
		}
	}
	if _, _, err := nextSets(t, third, Choice{IDs: quicIDs}); !errors.Is(err, failure.InProgress) {
		t.Errorf("Listen() without a lane = %v, want ErrInProgress", err)
	}
	if err := ss.Close(); err != nil {
		t.Fatal(err)
	}
	if err := third.Room(); err != nil {
		t.Errorf("Room() after the end of the first process = %v", err)
	}
}

// TestKeep keeps flows without an ID with their process, by the client's address.
func TestKeep(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			testenv.Need(t, "ipv6")
			ass, a := firstSets(t, "udp", address, Choice{})
			var olds []*net.UDPConn
			addresses := []string{"127.0.0.1:0", "[::1]:0"}
			switch address[0] {
			case '1':
				addresses = addresses[:1]
			case '[':
				addresses = addresses[1:]
			}
			for range 10 {
				for _, at := range addresses {
					olds = append(olds, dialer(t, "udp", at))
				}
			}
			for _, c := range olds {
				if err := a.Keep(c.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
					t.Fatal(err)
				}
			}
			for i := len(olds); i < MaxKept-1; i++ {
				if err := a.Keep(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)); err != nil {
					t.Fatal(err)
				}
			}
			_, b, err := nextSets(t, ass, Choice{})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Serve(); err != nil {
				t.Fatal(err)
			}
			p := []byte("a session's datagram")
			for i, c := range olds {
				if got := send(t, c, p, b, a); got != 1 {
					t.Fatalf("flow %d came to set %d, want the predecessor's", i, got)
				}
			}
			for _, at := range addresses {
				if got := send(t, dialer(t, "udp", at), p, b, a); got != 0 {
					t.Errorf("a new flow of %s came to set %d, want the successor's", at, got)
				}
			}
			// One that the predecessor was about to keep.
			late := dialer(t, "udp", addresses[0])
			if err := a.Keep(late.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
				t.Fatal(err)
			}
			if got := send(t, late, p, b, a); got != 1 {
				t.Errorf("a late flow came to set %d, want the predecessor's", got)
			}
			if err := a.Forget(olds[0].LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
				t.Fatal(err)
			}
			if got := send(t, olds[0], p, b, a); got != 0 {
				t.Errorf("a flow that has ended came to set %d, want the successor's", got)
			}
			if err := b.Keep(netip.MustParseAddrPort("10.9.9.9:9")); err != nil {
				t.Fatal(err)
			}
			err = b.Keep(netip.MustParseAddrPort("10.9.9.8:9"))
			if !errors.Is(err, failure.Unsupported) || !strings.Contains(err.Error(), "1001 flows without an ID") {
				t.Errorf("Keep() beyond the limit = %v, want ErrUnsupported", err)
			}
		})
	}
}

// TestAdopt makes lanes of a socket that was bound without SO_REUSEPORT.
func TestAdopt(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "reuseport_bpf")
	testenv.Need(t, "memfd")
	for _, shared := range []bool{false, true} {
		old := dialer(t, "udp", "0.0.0.0:0")
		var ss Sets
		defer ss.Close()
		s, err := ss.Listen(t.Context(), net.ListenConfig{}, Key{"udp", ":0"}, Choice{IDs: quicIDs}, func() (syscall.Conn, bool, error) { return old, shared, nil })
		if err != nil {
			t.Fatal(err)
		}
		client := dialer(t, "udp", "127.0.0.1:0")
		olds := &Set{conn: old}
		if got := send(t, client, packetOf(t, nil), s, olds); shared == (got == 0) {
			t.Errorf("shared %t: a new flow came to %d before Serve", shared, got)
		}
		if err := ss.Serve(); err != nil {
			t.Fatal(err)
		}
		if got := send(t, client, packetOf(t, nil), s); got != 0 {
			t.Errorf("shared %t: a new flow came to %d after Serve", shared, got)
		}
		if err := ss.Undo(); err != nil {
			t.Fatal(err)
		}
		if got := send(t, client, packetOf(t, nil), s, olds); shared == (got == 0) {
			t.Errorf("shared %t: a new flow came to %d after Undo", shared, got)
		}
	}
}

// TestForeign wants programs and sockets of others to be noticed.
func TestForeign(t *testing.T) {
	t.Parallel()
	ss, s := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	var other Sets
	defer other.Close()
	_, err := other.Listen(t.Context(), net.ListenConfig{}, Key{"udp", s.Conn().LocalAddr().String()}, Choice{IDs: quicIDs}, none)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Listen() on the lanes of another line = %v, want EADDRINUSE", err)
	}
	if err := s.g.attach(&route{current: s.lane + 1}); err != nil {
		t.Fatal(err)
	}
	err = s.g.verify(&s.attached, s.lane)
	if !errors.Is(err, failure.Unsupported) || !strings.Contains(err.Error(), "has set a steering program") {
		t.Errorf("verify() with another program = %v", err)
	}
	if err := ss.Serve(); err != nil {
		t.Errorf("Serve() over another program = %v", err)
	}
}

// TestMismatch has a successor describe the IDs in another way.
func TestMismatch(t *testing.T) {
	t.Parallel()
	ss, s := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	if _, _, err := nextSets(t, ss, Choice{IDs: IDs{Len: 8, Forms: quicIDs.Forms}}); !errors.Is(err, failure.Mismatch) {
		t.Errorf("Listen() with other IDs = %v, want ErrMismatch", err)
	}
	client := dialer(t, "udp", "127.0.0.1:0")
	if got := send(t, client, packetOf(t, nil), s); got != 0 {
		t.Errorf("a new flow came to %d", got)
	}
}

// TestPoller wants no lane but its own to be registered with Go's poller: each datagram of
// another process would wake this one.
func TestPoller(t *testing.T) {
	ss, _ := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
	_, s := next(t, ss)
	polled := make(map[string]bool)
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dir {
		if to, _ := os.Readlink("/proc/self/fd/" + d.Name()); to == "anon_inode:[eventpoll]" {
			info, err := os.ReadFile("/proc/self/fdinfo/" + d.Name())
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(info)) {
				if f := strings.Fields(line); len(f) > 1 && f[0] == "tfd:" {
					polled[f[1]] = true
				}
			}
		}
	}
	if len(polled) == 0 {
		t.Fatal("nothing is registered: the test can't fail")
	}
	for lane, fd := range s.g {
		if polled[fmt.Sprint(fd)] {
			t.Errorf("lane %d is registered", lane)
		}
	}
}

// TestOptions wants SO_RCVBUF of a lane to stay as it was set.
func TestOptions(t *testing.T) {
	t.Parallel()
	ss, _ := firstSets(t, "udp", "127.0.0.1:0", Choice{Lanes: 3, IDs: quicIDs})
	second, b := next(t, ss)
	if err := b.Conn().SetReadBuffer(50000); err != nil {
		t.Fatal(err)
	}
	lane := b.lane
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	_, c := next(t, ss)
	if c.lane != lane {
		t.Fatalf("lane %d, want %d", c.lane, lane)
	}
	if got, err := unix.GetsockoptInt(c.g[c.lane], unix.SOL_SOCKET, unix.SO_RCVBUF); got != 2*50000 || err != nil {
		t.Errorf("SO_RCVBUF %d, %v, want %d", got, err, 2*50000)
	}
}

// TestStale wants what waits in a lane that no process has to be discarded.
func TestStale(t *testing.T) {
	t.Parallel()
	ss, a := firstSets(t, "udp", "127.0.0.1:0", Choice{Lanes: 3, IDs: quicIDs})
	second, b := next(t, ss)
	client := dialer(t, "udp", "127.0.0.1:0")
	if err := second.Serve(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteTo(packetOf(t, b), a.Conn().LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(second.Undo(), second.Close()); err != nil {
		t.Fatal(err)
	}
	_, c := next(t, ss)
	if c.lane != b.lane {
		t.Fatalf("lane %d, want %d", c.lane, b.lane)
	}
	if n, _, err := unix.Recvfrom(c.g[c.lane], make([]byte, 10), unix.MSG_DONTWAIT|unix.MSG_PEEK); err != unix.EAGAIN {
		t.Errorf("%d bytes, %v wait in a lane that no process has had", n, err)
	}
}
