package reuseport_test

import (
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// A listener of Bind that is closed while it joins its group is no member
// afterwards: the group would steer and drain by a socket that is closed.
func TestListenMeetsClose(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	g := group(t, "tcp4", "127.66.34.9:0", 1)
	for range 300 {
		l, err := g.Bind(ctx)
		if err != nil {
			t.Fatal(err)
		}
		start := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			<-start
			if err := l.Listen(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("Listen: %v, want nil or ErrClosed", err)
			}
		})
		wg.Go(func() {
			<-start
			if err := l.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		close(start)
		wg.Wait()
		if n := reuseport.Joined(g); n != 1 {
			t.Fatalf("%d sockets are in the group, want the 1 that was not closed", n)
		}
	}
}
