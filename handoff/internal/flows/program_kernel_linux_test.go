package flows

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClientsIDsInKernel is TestClientsIDs with datagrams, of which the kernel chooses the
// lane, while a predecessor has one: none of 20,000 first packets of clients comes to it. A
// control with IDs of 9 bytes, which clients choose as well, loses some.
func TestClientsIDsInKernel(t *testing.T) {
	t.Parallel()
	const clients = 20000
	strayed := func(ids IDs) (n int) {
		ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{Lanes: MaxLanes, IDs: ids})
		// Several predecessors linger: each has one tag of 256.
		olds, ss := []*Set{a}, ass
		var last *Set
		for range 8 {
			bss, b, err := nextSets(t, ss, Choice{IDs: ids})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(b.Serve(), b.Own()); err != nil {
				t.Fatal(err)
			}
			olds, ss, last = append(olds, b), bss, b
		}
		olds = olds[:len(olds)-1]
		client := dialer(t, "udp", "127.0.0.1:0")
		p := make([]byte, 40)
		got := 0
		take := func(s *Set) (n int) {
			for {
				if _, _, err := unix.Recvfrom(s.g[s.lane], p, unix.MSG_DONTWAIT); err == unix.EAGAIN {
					return n
				} else if err == nil {
					n++
				}
			}
		}
		random := rand.NewChaCha8([32]byte{})
		for i := range clients {
			_, _ = random.Read(p) // it never fails
			p[0] |= 0xc0
			p[5] = byte(8 + p[5]%13)
			if _, err := client.WriteTo(p, a.Conn().LocalAddr()); err != nil {
				t.Fatal(err)
			}
			if i%64 == 0 { // as many fit into the lane
				got += take(last)
			}
		}
		for _, s := range olds {
			n += take(s)
		}
		for limit := time.Now().Add(10 * time.Second); got+n < clients && time.Now().Before(limit); {
			got += take(last)
			for _, s := range olds {
				n += take(s)
			}
		}
		if got+n != clients {
			t.Errorf("%d of %d datagrams have come", got+n, clients)
		}
		return n
	}
	if n := strayed(quicIDs); n != 0 {
		t.Errorf("%d first packets have come to a predecessor, want 0", n)
	}
	control := quicIDs
	control.Len = 9
	n := strayed(control)
	t.Logf("control: %d", n)
	if n == 0 {
		t.Error("no first packet has come to a predecessor if the server's IDs have 9 bytes: the test can't fail")
	}
}
