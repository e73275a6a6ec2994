package handoffhttp_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// gated is a listener whose Accept waits after some connections, until it is closed or
// opened.
type gated struct {
	net.Listener
	left atomic.Int32
	once sync.Once
	wait chan struct{}
}

func (g *gated) open() { g.once.Do(func() { close(g.wait) }) }

func (g *gated) Close() error {
	defer g.open()
	return g.Listener.Close()
}

func (g *gated) Accept() (net.Conn, error) {
	if g.left.Add(-1) < 0 {
		<-g.wait
	}
	return g.Listener.Accept()
}

// TestWhatEndsAServerReallyDoes has a client at each stage when a member of a group
// ends: the table in the package documentation and the README.
func TestWhatEndsAServerReallyDoes(t *testing.T) {
	t.Parallel()
	type fates struct{ Queued, Silent, Idle, Handled bool } // answered
	for _, c := range []struct {
		name string
		end  func(ctx context.Context, srv *http.Server, s *handoffhttp.Server, ln *reuseport.Listener) error
		want fates
		// accepts: a goroutine accepts when the end begins; or else it is too late, for a
		// queue that is reset.
		accepts bool
	}{
		{"http.Server.Close", func(_ context.Context, srv *http.Server, _ *handoffhttp.Server, _ *reuseport.Listener) error {
			return srv.Close()
		}, fates{}, false},
		{"http.Server.Shutdown", func(ctx context.Context, srv *http.Server, _ *handoffhttp.Server, _ *reuseport.Listener) error {
			return srv.Shutdown(ctx)
		}, fates{Handled: true}, false},
		{"Drain, then Shutdown", func(ctx context.Context, srv *http.Server, _ *handoffhttp.Server, ln *reuseport.Listener) error {
			if _, err := ln.Drain(ctx); err != nil {
				return err
			}
			return srv.Shutdown(ctx)
		}, fates{Queued: true, Handled: true}, true},
		{"Server.Shutdown", nil, fates{true, true, true, true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			member := member(t)
			g := &gated{Listener: member, wait: make(chan struct{})}
			g.left.Store(3)
			l := &line{tb: t, addr: member.Addr().String(), blocked: make(map[string]chan struct{}), entered: make(chan string, 1), served: make(map[string]int)}
			var fresh, idled atomic.Int32
			begun := make(chan struct{})
			srv := &http.Server{Handler: l.handler(1), ConnState: func(_ net.Conn, st http.ConnState) {
				switch st {
				case http.StateNew:
					fresh.Add(1)
				case http.StateIdle:
					idled.Add(1)
				}
			}}
			srv.RegisterOnShutdown(func() { close(begun) })
			s := handoffhttp.New(srv, nil)
			serve, end := srv.Serve, func() error { return c.end(ctx, srv, s, member) }
			if c.end == nil {
				serve, end = s.Serve, func() error { return s.Shutdown(ctx) }
			}
			served, ended := make(chan error, 1), make(chan error, 1)
			go func() { served <- serve(g) }()

			l.block("/a")
			idle, busy, silent := l.dial(), l.dial(), l.dial()
			idle.send(post)
			idle.want(1, "POST", "/b")
			busy.send(get)
			l.waitEntered()
			eventually(t, "all are accepted", func() bool { return fresh.Load() == 3 && idled.Load() == 1 })
			queued := l.dial()
			queued.send(post)
			join(t, l.addr)

			if c.accepts {
				g.open()
			}
			go func() { ended <- end() }()
			if c.name == "http.Server.Close" {
				if err := <-ended; err != nil {
					t.Error(err)
				}
				ended <- nil
			} else {
				select {
				case <-begun:
				case <-time.After(patience):
					t.Fatal("Shutdown does not begin")
				}
			}
			answered := func(c *client, send, method string) bool {
				_, _ = c.nc.Write([]byte(send)) // the answer tells
				_, err := c.receive(method)
				return err == nil
			}
			got := fates{
				Queued: answered(queued, "", "POST"),
				Silent: answered(silent, post, "POST"),
				Idle:   answered(idle, post, "POST"),
			}
			l.release("/a")
			got.Handled = answered(busy, "", "GET")
			for _, c := range []*client{queued, silent, idle, busy} {
				_ = c.nc.Close()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("answered (-want +got):\n%s", diff)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			<-served
		})
	}
}

// TestShutdownWithin has idle clients that go on to send: Shutdown ends with the next
// request of the slowest.
func TestShutdownWithin(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{10 * time.Millisecond, time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			t.Parallel()
			l := newLeaver(t, listen(t), nil, nil)
			const clients = 8
			done := make(chan error, clients)
			for range clients {
				c := l.dial()
				c.send(post)
				c.want(1, "POST", "/b")
				go func() { // ends with its connection
					for {
						<-time.After(every) // the client's own pace
						if _, err := c.nc.Write([]byte(post)); err != nil {
							done <- err
							return
						}
						if res, err := c.receive("POST"); err != nil || res.close {
							done <- err
							return
						}
					}
				}()
			}
			l.shutdown(context.Background())
			r := l.gone(nil)
			for range clients {
				if err := <-done; err != nil {
					t.Errorf("a request fails: %v", err)
				}
			}
			if r.Open != clients || len(r.Cut) != 0 {
				t.Errorf("report %+v, want %d open and none cut", r, clients)
			}
			t.Logf("clients that send every %v: ended in %v", every, r.Took)
		})
	}
}
