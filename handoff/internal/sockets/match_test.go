package sockets_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// source is a socket that is never opened.
type source int

func (source) Open(*wire.Socket) (sockets.Handle, error) { return nil, nil }
func (source) Borrow(*wire.Socket) (int, error)          { return -1, nil }
func (source) Close() error                              { return nil }

func TestMatch(t *testing.T) {
	t.Parallel()
	listener := func(name, network, address, bound string) wire.Socket {
		return wire.Socket{Kind: wire.KindListener, Name: name, Network: network, Address: address, Bound: bound}
	}
	arrived := []wire.Socket{
		listener("", "tcp", ":8080", "[::]:8080"),
		listener("", "tcp", ":8080", "[::]:8080"),
		listener("", "tcp", "127.0.0.1:0", "127.0.0.1:4000"),
		listener("web", "tcp", ":80", "[::]:80"),
		listener("", "unix", "/run/a", "/run/a"),
		{Kind: wire.KindPacket, Network: "udp", Address: ":53", Bound: "[::]:53"},
		{Kind: wire.KindFile, Name: "web"},
	}
	key := func(kind wire.SocketKind, name, network, address string) sockets.Key {
		return sockets.Key{Kind: kind, Name: name, Network: network, Address: address}
	}
	const none = -1
	for _, tt := range []struct {
		name  string
		asked []sockets.Key
		want  []int // indexes into arrived
	}{
		{"by key, in order", []sockets.Key{key(wire.KindListener, "", "tcp", ":8080"), key(wire.KindListener, "", "tcp", ":8080"), key(wire.KindListener, "", "tcp", ":8080")}, []int{0, 1, none}},
		{"by address", []sockets.Key{key(wire.KindListener, "", "tcp", "[::]:8080"), key(wire.KindListener, "", "tcp", ":8080")}, []int{0, 1}},
		{"port 0 as before", []sockets.Key{key(wire.KindListener, "", "tcp", "127.0.0.1:0")}, []int{2}},
		{"port 0 became a number", []sockets.Key{key(wire.KindListener, "", "tcp", "127.0.0.1:4000")}, []int{2}},
		{"port 0 of another address", []sockets.Key{key(wire.KindListener, "", "tcp", "127.0.0.2:0")}, []int{none}},
		{"by name, the address has changed", []sockets.Key{key(wire.KindListener, "web", "tcp", ":81")}, []int{3}},
		{"named socket without its name", []sockets.Key{key(wire.KindListener, "", "tcp", ":80")}, []int{3}},
		{"by address, with a name", []sockets.Key{key(wire.KindListener, "api", "tcp", ":8080"), key(wire.KindListener, "api", "tcp", "[::]:80")}, []int{0, 3}},
		{"all addresses", []sockets.Key{key(wire.KindListener, "", "tcp", "0.0.0.0:8080"), key(wire.KindListener, "", "tcp", "[::]:80"), key(wire.KindPacket, "", "udp", "0.0.0.0:53")}, []int{0, 3, 5}},
		{"one address of two networks", []sockets.Key{key(wire.KindListener, "", "tcp4", "127.0.0.1:4000")}, []int{2}},
		{"one family of all addresses", []sockets.Key{key(wire.KindListener, "", "tcp6", ":8080"), key(wire.KindListener, "", "tcp4", "0.0.0.0:80")}, []int{none, none}},
		{"one of all addresses", []sockets.Key{key(wire.KindListener, "", "tcp", "127.0.0.1:8080")}, []int{none}},
		{"by name, another network", []sockets.Key{key(wire.KindListener, "web", "tcp4", ":80")}, []int{none}},
		{"another network", []sockets.Key{key(wire.KindListener, "", "tcp4", ":8080")}, []int{none}},
		{"another kind", []sockets.Key{key(wire.KindListener, "", "udp", ":53")}, []int{none}},
		{"datagrams", []sockets.Key{key(wire.KindPacket, "", "udp", "[::]:53")}, []int{5}},
		{"unix", []sockets.Key{key(wire.KindListener, "", "unix", "/run/a")}, []int{4}},
		{"file", []sockets.Key{key(wire.KindFile, "web", "", ""), key(wire.KindFile, "web", "", "")}, []int{6, none}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := sockets.NewTable()
			all := make([]sockets.Arrived, len(arrived))
			for i := range arrived {
				all[i] = sockets.Arrived{Entry: arrived[i], Source: source(i)}
			}
			table.Arrive(all)
			for i, k := range tt.asked {
				got := none
				if a, ok := table.Match(k, false); ok {
					got = int(a.Source.(source))
				}
				if got != tt.want[i] {
					t.Errorf("Match(%v), call %d: socket %d, want %d", k, i, got, tt.want[i])
				}
			}
			left := len(table.Own())
			for _, i := range tt.want {
				if i != none {
					left++
				}
			}
			if left != len(arrived) {
				t.Errorf("%d sockets were matched or are left, want %d", left, len(arrived))
			}
		})
	}
}
