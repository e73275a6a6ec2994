package flows

import (
	"crypto/rand"
	"math/big"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

// quicIDs are those of QUIC version 1, RFC 9000 section 17.
var quicIDs = IDs{Len: 7, Forms: []Form{
	{Mask: 0x80, Value: 0x80, LenAt: 5, At: 6},
	{Mask: 0x80, Value: 0, At: 1},
}}

// run runs r's program on a datagram. The VM of x/net/bpf knows no network header.
func run(t *testing.T, r *route, p []byte) int {
	t.Helper()
	raw, err := r.assemble()
	if err != nil {
		t.Fatal(err)
	}
	ins, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("the program has instructions that the package does not know")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	lane, err := vm.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	return lane
}

// TestProgram compares the program with what key.lane says, on datagrams of all kinds and
// lengths.
func TestProgram(t *testing.T) {
	t.Parallel()
	const current = 6
	for _, ids := range []IDs{
		quicIDs,
		{Len: 4, Forms: []Form{{Mask: 0xff, Value: 4, At: 4}}}, // WireGuard's data, of which the server chooses the index
		{Len: 20, Forms: []Form{{At: 1}}},
	} {
		r := &route{ids: ids, key: newKey(), lanes: 8, live: []int{0, 3, 5}, current: current}
		for length := range 60 {
			for lane := -1; lane < r.lanes; lane++ {
				for _, f := range ids.Forms {
					p := make([]byte, length)
					rand.Read(p)
					if lane >= 0 && length >= ids.end(f) {
						p[0] = p[0]&^f.Mask | f.Value
						if f.LenAt > 0 {
							p[f.LenAt] = byte(ids.Len)
						}
						r.key.mark(p[f.At:f.At+ids.Len], lane, r.lanes)
						if got := r.key.lane(&ids, p, r.lanes); got != lane {
							t.Fatalf("%d bytes, marked for lane %d: lane() = %d", length, lane, got)
						}
					}
					want := r.key.lane(&ids, p, r.lanes)
					if want != 0 && want != 3 && want != 5 { // no process has it
						want = current
					}
					if got := run(t, r, p); got != want {
						t.Fatalf("IDs %+v, datagram % x: lane %d, want %d", ids, p, got, want)
					}
				}
			}
		}
	}
}

// TestClientsIDs wants IDs that clients have chosen to belong to no lane: RFC 9000 section
// 7.2 has them choose 8 bytes or more. If the server chose 9 bytes, as the control does,
// some of the clients' IDs would look like its own.
func TestClientsIDs(t *testing.T) {
	t.Parallel()
	const clients = 20000
	taken := func(ids IDs) (n int) {
		k := newKey()
		for range clients {
			p := make([]byte, 1200)
			rand.Read(p)
			p[0] |= 0xc0
			p[5] = byte(8 + p[5]%13)
			if k.lane(&ids, p, 8) >= 0 {
				n++
			}
		}
		return n
	}
	if n := taken(quicIDs); n != 0 {
		t.Errorf("%d of %d clients' IDs are of a lane, want 0", n, clients)
	}
	control := quicIDs
	control.Len = 9
	if n := taken(control); n == 0 {
		t.Error("no client's ID is of a lane if the server's have 9 bytes: the test can't fail")
	}
}

// TestProgramSize wants the most flows to fit into a program.
func TestProgramSize(t *testing.T) {
	t.Parallel()
	const maxInstructions = 4096 // BPF_MAXINSNS
	r := &route{ids: quicIDs, key: newKey(), lanes: MaxLanes, current: 1}
	for l := range MaxLanes {
		r.live = append(r.live, l)
	}
	for i := range MaxKept {
		n, _ := rand.Int(rand.Reader, big.NewInt(1<<32))
		ip := [16]byte{0xfd, 12: byte(n.Int64() >> 24), 13: byte(n.Int64() >> 16), 14: byte(i >> 8), 15: byte(i)}
		a := netip.AddrFrom16(ip)
		if i%3 == 0 {
			a = netip.AddrFrom4([4]byte(ip[12:]))
		}
		r.kept = append(r.kept, kept{netip.AddrPortFrom(a, uint16(1024+i)), i % MaxLanes})
	}
	raw, err := r.assemble()
	if err != nil || len(raw) > maxInstructions {
		t.Errorf("%d flows are %d instructions, %v, want %d at most", MaxKept, len(raw), err, maxInstructions)
	}
}

func TestBadIDs(t *testing.T) {
	t.Parallel()
	for _, ids := range []IDs{
		{Len: 2, Forms: []Form{{}}},
		{Len: 8, Forms: []Form{{At: -1}}},
		{Len: 8, Forms: []Form{{Mask: 0x80, Value: 1}}},
		{Len: 8, Forms: make([]Form, maxForms+1)},
	} {
		if ids.check() == nil {
			t.Errorf("%+v are taken", ids)
		}
	}
}
