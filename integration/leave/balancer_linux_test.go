package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// TestBalancer restarts two instances in turn behind HAProxy, which checks /ready, under
// POSTs on connections that are kept and on new ones. As a control, instances that
// end by http.Server.Shutdown at once.
func TestBalancer(t *testing.T) {
	testenv.Long(t, "handoff/handoffhttp.TestShutdownDelay")
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		testmain.Skipped()
		t.Skipf("%v: apt-get install haproxy", err)
	}
	const restarts = 6
	behind := func(way string) load.Stats {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		r := &run{Way: way, User: os.Getuid()}
		var now [2]*instance
		for i := range now {
			if now[i], err = r.start(here, "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
			defer func() { now[i].kill() }()
		}
		front := balance(t, haproxy, now[0].addr, now[1].addr)
		stop, end := context.WithCancel(ctx)
		stats := make(chan load.Stats, 1)
		go func() {
			s, err := load.Run(stop, load.Config{Pause: time.Millisecond, Targets: []load.Target{
				{Name: "kept", Kind: load.Post, Network: "tcp", Address: front, Workers: 8},
				{Name: "new", Kind: load.HTTP, Network: "tcp", Address: front, Workers: 4},
			}})
			if err != nil {
				t.Error(err)
			}
			stats <- s
		}()
		for n := range restarts {
			i := &now[n%2]
			serves(ctx, t, now[0])
			serves(ctx, t, now[1])
			addr := (*i).addr
			if err := r.end(ctx, *i); err != nil {
				t.Fatal(err)
			}
			if *i, err = r.start(here, addr); err != nil {
				t.Fatal(err)
			}
		}
		serves(ctx, t, now[(restarts-1)%2])
		end()
		s := <-stats
		t.Logf("%s: %d restarts, %d requests, %d failed %v, cut %d, to the end %v", way, restarts, s.Connections, s.Failed, s.Failures, r.Cut, r.Linger)
		for _, i := range now {
			if err := r.end(ctx, i); err != nil {
				t.Error(err)
			}
		}
		return s
	}
	if s := behind(wayDelay); s.Failed != 0 {
		t.Errorf("%d of %d failed: %v", s.Failed, s.Connections, s.Failures)
	}
	if s := behind(wayPlain); s.Failed == 0 {
		t.Errorf("http.Server.Shutdown fails none of %d requests: the test proves nothing", s.Connections)
	}
}

// serves waits until the balancer sends requests to i.
func serves(ctx context.Context, t *testing.T, i *instance) {
	t.Helper()
	for before := i.served.Load(); i.served.Load() == before; {
		select {
		case <-time.After(10 * time.Millisecond): // a poll
		case <-ctx.Done():
			t.Fatalf("the balancer sends no request to %s: %v", i.addr, context.Cause(ctx))
		}
	}
}

// balance starts HAProxy and returns its address.
func balance(t *testing.T, path, a, b string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // HAProxy gets the socket
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, `defaults
	mode http
	timeout connect 5s
	timeout check 5s
	timeout client 30s
	timeout server 30s
frontend f
	bind fd@3
	default_backend b
backend b
	option httpchk GET /ready
	default-server check inter 100ms fall 1 rise 1
	server a %s
	server b %s
`, a, b), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-db", "-f", config)
	cmd.ExtraFiles = []*os.File{f}
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it holds nothing
		_ = cmd.Wait()
		if text, err := os.ReadFile(out.Name()); err == nil && t.Failed() {
			t.Logf("haproxy: %s", text)
		}
	})
	return ln.Addr().String()
}
