package systemd_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

func TestName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		e    wire.Socket
		want string
	}{
		{
			wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: "[::]:80", Shard: 2},
			"baton.1|listener|tcp|%5B%3A%3A%5D%3A80|2||",
		},
		{
			wire.Socket{Kind: wire.KindPacket, Name: "a|b", Network: "unixgram", Address: "/run/x y", PathDev: 0xfd00, PathIno: 0x1f},
			"baton.1|packet|unixgram|%2Frun%2Fx+y|0|a%7Cb|fd00.1f",
		},
		{
			wire.Socket{Kind: wire.KindListener, Network: "unix", Address: "@\x00é%"},
			"baton.1|listener|unix|%40%00%C3%A9%25|0||",
		},
	} {
		if got := systemd.NameOf(&c.e); got != c.want || !sdnotify.ValidName(got) {
			t.Errorf("NameOf(%+v) = %q, want %q", c.e, got, c.want)
		}
	}
}

// FuzzName reads names that another program may have put into the store, and
// Baton's own.
func FuzzName(f *testing.F) {
	f.Add("baton.1|listener|tcp|[%3A%3A]%3A80|2||", "web", "tcp", ":80", uint32(2), uint64(0), uint64(0))
	f.Add("baton.1|packet|unixgram|/run/x|0|a%7Cb|fd00.1f", "", "unixgram", "@\x00%", uint32(0), uint64(1), uint64(2))
	f.Add("baton.1|||||x|", "%zz", "", "|", uint32(1<<32-1), uint64(0), uint64(1<<64-1))
	f.Fuzz(func(t *testing.T, any, name, network, address string, shard uint32, dev, ino uint64) {
		if e, err := systemd.ParseName(any); (e == nil) != (err != nil) {
			t.Errorf("ParseName(%q) = %v, %v", any, e, err)
		}
		e := wire.Socket{Kind: wire.KindListener, Name: name, Network: network, Address: address, Shard: shard, PathIno: ino}
		if ino != 0 {
			e.PathDev = dev
		}
		text := systemd.NameOf(&e)
		if !sdnotify.ValidName(text) && len(text) < 256 {
			t.Fatalf("NameOf(%+v) = %q, which systemd does not take", e, text)
		}
		got, err := systemd.ParseName(text)
		if err != nil {
			t.Fatal(err)
		}
		e.Keeper = wire.KeeperStore
		if diff := cmp.Diff(&e, got); diff != "" {
			t.Errorf("ParseName(%q) (-want +got):\n%s", text, diff)
		}
	})
}
