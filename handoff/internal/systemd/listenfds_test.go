package systemd_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

func TestServes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind           wire.SocketKind
		network, bound string
		serves, not    []string // networks
	}{
		{wire.KindListener, "tcp", "127.0.0.1:80", []string{"tcp", "tcp4"}, []string{"tcp6", "udp", "unix"}},
		{wire.KindListener, "tcp4", "127.0.0.1:80", []string{"tcp", "tcp4"}, []string{"tcp6"}},
		{wire.KindListener, "tcp", "[::]:80", []string{"tcp", "tcp6"}, []string{"tcp4"}},
		{wire.KindListener, "tcp6", "[fe80::1%lo]:80", []string{"tcp", "tcp6"}, []string{"tcp4"}},
		{wire.KindPacket, "udp", "[::ffff:127.0.0.1]:80", []string{"udp", "udp4"}, []string{"udp6", "tcp"}},
		{wire.KindListener, "unix", "/run/x", []string{"unix"}, []string{"unixpacket", "unixgram", "tcp"}},
	} {
		e := &wire.Socket{Kind: c.kind, Network: c.network, Bound: c.bound}
		for want, networks := range map[bool][]string{true: c.serves, false: c.not} {
			for _, n := range networks {
				if got := systemd.Serves(e, sockets.Key{Kind: c.kind, Network: n}); got != want {
					t.Errorf("%s %s serves %s: %t, want %t", c.network, c.bound, n, got, want)
				}
			}
		}
		if systemd.Serves(e, sockets.Key{Kind: wire.KindFile, Network: c.network}) {
			t.Errorf("%s %s serves another kind", c.network, c.bound)
		}
	}
}

func TestCollides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network, bound string
		other, address string
		want           bool
	}{
		{"tcp", "127.0.0.1:80", "tcp", "[::]:80", true},
		{"tcp", "127.0.0.1:80", "tcp6", "[::]:81", false},
		{"tcp", "127.0.0.1:80", "udp", "127.0.0.1:80", false},
		{"unix", "/run/x", "unixpacket", "/run/x", true},
		{"unix", "/run/x", "unix", "/run/y", false},
	} {
		e := &wire.Socket{Kind: wire.KindListener, Network: c.network, Bound: c.bound}
		if got := systemd.Collides(e, c.other, c.address); got != c.want {
			t.Errorf("%s %s collides with %s %s: %t, want %t", c.network, c.bound, c.other, c.address, got, c.want)
		}
	}
}
