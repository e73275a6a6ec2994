package rebind_test

import (
	"net"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/rebind"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestForeign compares network namespaces as new and old kernels do.
func TestForeign(t *testing.T) {
	testenv.Need(t, "netns")
	listen := func() *net.TCPListener {
		ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Error(err)
		}
		return ln
	}
	here, here2 := listen(), listen()
	var there *net.TCPListener
	netlab.NewNamespace(t).Do(func() { there = listen() })
	for _, ln := range []*net.TCPListener{here, here2, there} {
		defer ln.Close()
	}
	if rebind.Foreign(here) || !rebind.Foreign(there) {
		t.Errorf("Foreign: %v here, %v there", rebind.Foreign(here), rebind.Foreign(there))
	}
	if a, b, c := rebind.NetnsInode(here), rebind.NetnsInode(here2), rebind.NetnsInode(there); a == 0 || a != b || c == 0 || c == a {
		t.Errorf("inodes of network namespaces: %d, %d here, %d there", a, b, c)
	}
}
