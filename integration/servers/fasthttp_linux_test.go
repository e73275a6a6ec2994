package servers_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

func serveFast(ctx context.Context, _ settings, up *handoff.Upgrader, ln *handoff.Listener) error {
	var lingering atomic.Bool
	gen := generation(up)
	srv := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) {
		if lingering.Load() {
			c.SetConnectionClose()
		}
		_, _ = fmt.Fprintf(c, "%s %s", gen, c.PostBody())
	}}
	served := make(chan error, 1)
	lis := ln
	go func() { served <- srv.Serve(lis) }()
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	lingering.Store(true)
	<-served
	return up.Shutdown(ctx)
}

// TestFastHTTP sends keep-alive POSTs while the server is replaced.
func TestFastHTTP(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, "fasthttp", settings{Mode: mode})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan load.Stats, 1)
		go func() { // ends after ctx
			stats, err := load.Run(ctx, load.Config{
				Targets: []load.Target{{Name: "post", Kind: load.Post, Network: "tcp", Address: s.addr, Workers: 16}},
				Timeout: patience, Pause: time.Millisecond,
			})
			if err != nil {
				t.Error(err)
			}
			ended <- stats
		}()
		for range upgrades() {
			if r := s.upgrade(); r.Cut != 0 {
				t.Errorf("%d connections cut: %v", r.Cut, r.CutBy)
			}
		}
		stop()
		if stats := <-ended; stats.Failed > 0 || stats.Connections == 0 {
			t.Errorf("%d requests, %d failed: %v", stats.Connections, stats.Failed, stats.Samples)
		}
	})
}
