package flows

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestKeepOnOlderKernels keeps flows where the kernel takes short programs only, as older
// ones do by default: Keep says how many, and the successor of a process that has kept as
// many as it can gets the address.
func TestKeepOnOlderKernels(t *testing.T) {
	testenv.Need(t, "root")
	testenv.Need(t, "netns")
	ns := netlab.NewNamespace(t)
	ns.Do(func() {
		// Kernels that have one limit for all namespaces are older ones, too.
		_ = os.WriteFile("/proc/sys/net/core/optmem_max", []byte("20480"), 0)
		ass, a := firstSets(t, "udp", "127.0.0.1:0", Choice{IDs: quicIDs})
		var err error
		n := 0
		for ; err == nil && n < MaxKept; n++ {
			err = a.Keep(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 1))
		}
		if !errors.Is(err, failure.Unsupported) || !strings.Contains(err.Error(), "net.core.optmem_max") || n < 100 {
			t.Errorf("Keep() of flow %d = %v, want ErrUnsupported after some hundreds", n, err)
		}
		_, b := next(t, ass)
		if err := b.Serve(); err != nil {
			t.Errorf("Serve() of the successor, with %d flows kept: %v", n-1, err)
		}
		if err := a.Forget(netip.MustParseAddrPort("10.0.0.1:1")); err != nil {
			t.Error(err)
		}
	})
}
