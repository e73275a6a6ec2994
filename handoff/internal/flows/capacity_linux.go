package flows

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// capacity returns how many flows without an ID the program of an address can know, up to
// MaxKept. The kernel takes no program that is larger than net.core.optmem_max
// (sk_reuseport_attach_filter, net/core/filter.c): 20 KiB in older kernels, and 128 KiB in
// newer ones. It counts its own instructions, so capacity asks it, with a socket that is
// not bound.
func (t *table) capacity() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return MaxKept // not known
	}
	defer fdx.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return MaxKept
	}
	fits := func(n int) bool {
		r := &route{ids: t.IDs, key: t.Key, lanes: t.Lanes}
		for lane := range t.Lanes {
			r.live = append(r.live, lane)
		}
		for i := range n {
			ip := binary.BigEndian.AppendUint32(nil, rand.Uint32())
			r.kept = append(r.kept, kept{netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), uint16(i)), i % t.Lanes})
		}
		return !errors.Is(group{fd}.attach(r), unix.ENOMEM)
	}
	if fits(MaxKept) {
		return MaxKept
	}
	n := sort.Search(MaxKept, func(n int) bool { return !fits(n + 1) })
	return n - n/16 // a hash can need one more instruction than another
}
