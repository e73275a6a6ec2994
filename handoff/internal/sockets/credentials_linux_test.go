package sockets_test

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// TestIntroduce calls listen(2) again for a listener with a limit of its own: that and
// what is in the queue stay.
func TestIntroduce(t *testing.T) {
	t.Parallel()
	k := sockets.Key{Kind: wire.KindListener, Network: "unix", Address: filepath.Join(t.TempDir(), "u")}
	h, err := sockets.HandleOf(net.Listen(k.Network, k.Address))
	if err != nil {
		t.Fatal(err)
	}
	s, err := sockets.New(k, h, nil, &sockets.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	table := sockets.NewTable()
	defer table.Close()
	if err := table.Add(s, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := fdx.Borrow(h, func(fd int) error { return syscall.Listen(fd, 7) }); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial(k.Network, k.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := table.Introduce(); err != nil {
		t.Fatal(err)
	}
	if n, limit, err := reuseport.QueueLen(h); n != 1 || limit != 7 || err != nil {
		t.Errorf("after Introduce: %d of %d connections in the queue, %v, want 1 of 7", n, limit, err)
	}
}
