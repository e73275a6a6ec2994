package sockets_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// TestShare closes one share of a listener after the other, under load: the calls of that
// one alone end, no connection is lost, and the last one closes the listener.
func TestShare(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	s := sockets.NewTestSocket(t, "tcp", "127.0.0.1:0")
	if err := table.Add(s, nil); err != nil {
		t.Fatal(err)
	}
	table.Open()
	const shares, accepters, each = 4, 4, 200
	dial := func() error {
		c, err := net.Dial("tcp", s.Entry.Bound)
		if err != nil {
			return err
		}
		defer c.Close()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || err.Error() != "EOF" {
			return errors.Join(errors.New("a connection is lost"), err)
		}
		return nil
	}
	var all [shares]*sockets.Share
	var served [shares]sync.WaitGroup
	for i := range all {
		all[i] = s.Listener.Share()
		for range accepters {
			served[i].Go(func() {
				for {
					c, err := all[i].Accept(nil)
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("Accept() = %v, want net.ErrClosed", err)
						}
						return
					}
					_ = c.Close()
				}
			})
		}
	}
	var clients sync.WaitGroup
	for i, share := range all {
		if i == shares-2 {
			table.Pause() // Accept waits, and ends all the same
		}
		for range 4 {
			clients.Go(func() {
				for range each / 4 {
					if err := dial(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		if i == 0 {
			clients.Wait() // nothing comes that would wake a call
		}
		if i == shares-1 {
			table.Open()
			clients.Wait()
			if n := s.Listener.Accepted(); n != shares*each {
				t.Errorf("%d connections accepted, want %d", n, shares*each)
			}
		}
		if err := share.Close(); err != nil {
			t.Errorf("Close() of share %d = %v", i, err)
		}
		served[i].Wait()
		if err := share.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close() of share %d, again = %v, want net.ErrClosed", i, err)
		}
	}
	if dial() == nil {
		t.Error("the listener is open after its last share was closed")
	}
	if s.Listener.Share() != nil {
		t.Error("a listener whose last share was closed gives another one")
	}
}

// TestSharedListener asks for the listener of an address that the program has.
func TestSharedListener(t *testing.T) {
	t.Parallel()
	table := sockets.NewTable()
	defer table.Close()
	add := func(name, network, address string, lc *net.ListenConfig) *sockets.Socket {
		t.Helper()
		k := sockets.Key{Kind: wire.KindListener, Name: name, Network: network, Address: address}
		h, err := sockets.HandleOf(lc.Listen(context.Background(), network, address))
		if err != nil {
			t.Fatal(err)
		}
		s, err := sockets.New(k, h, lc, nil)
		if err == nil {
			err = table.Add(s, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := &net.ListenConfig{}
	random := add("", "tcp", "127.0.0.1:0", plain)
	named := add("web", "tcp", "127.0.0.1:0", plain)
	group := add("", "tcp", "127.0.0.1:0", &net.ListenConfig{Control: reuseport.Control(nil)})
	path := t.TempDir() + "/s"
	unix := add("", "unix", path, plain)
	for _, row := range []struct {
		name, network, address string
		want                   *sockets.Socket
	}{
		{"", "tcp", random.Entry.Bound, random},
		{"", "tcp4", random.Entry.Bound, random},
		{"", "tcp", "127.0.0.1:0", nil}, // another port
		{"", "tcp", "127.0.0.2" + random.Entry.Bound[len("127.0.0.1"):], nil},
		{"web", "tcp", named.Entry.Bound, named},
		{"", "tcp", named.Entry.Bound, nil},
		{"", "tcp", group.Entry.Bound, nil}, // a further member
		{"", "unix", path, unix},
		{"", "unix", path + "2", nil},
	} {
		got := table.Shared(sockets.Key{Kind: wire.KindListener, Name: row.name, Network: row.network, Address: row.address})
		if got != row.want {
			t.Errorf("for %q %s %s: %v, want %v", row.name, row.network, row.address, got, row.want)
		}
	}
	if err := unix.Listener.Share().Close(); err != nil {
		t.Fatal(err)
	}
	if s := table.Shared(sockets.Key{Kind: wire.KindListener, Network: "unix", Address: path}); s != nil {
		t.Errorf("a closed socket is shared: %v", s)
	}
}
