package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// The ways in which an instance ends.
const (
	wayBaton    = "handoffhttp.Run"
	wayDrain    = "Drain, then Shutdown"
	wayShutdown = "http.Server.Shutdown"
	wayClose    = "http.Server.Close"

	// Behind a load balancer, on a port of its own.
	wayDelay = "handoffhttp.Run with a Delay"
	wayPlain = "http.Server.Shutdown on a port of its own"
)

// delay is more than the balancer of the test takes to notice.
const delay = time.Second

// message is a line that an instance writes.
type message struct {
	Addr   string              `json:"addr,omitempty"` // it listens
	Served uint64              `json:"served,omitempty"`
	Report *handoffhttp.Report `json:"report,omitempty"` // the last line has it
}

// serviceMain is an instance, on an address, that ends in a way.
func serviceMain(args []string) error {
	address, way := args[0], args[1]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var ln net.Listener
	member, err := (*reuseport.Listener)(nil), error(nil)
	if way == wayDelay || way == wayPlain {
		ln, err = net.Listen("tcp", address)
	} else {
		member, err = reuseport.Listen(ctx, "tcp", address, nil)
		ln = member
	}
	if err != nil {
		return err
	}
	var served atomic.Uint64
	post := &load.Service{Version: fmt.Sprint(os.Getpid())}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if r.Method == http.MethodPost {
			post.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write([]byte("hello\n")) // the client tells
	})
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	say(message{Addr: ln.Addr().String()})
	go func() { // ends with the process
		for range time.Tick(20 * time.Millisecond) {
			say(message{Served: served.Load()})
		}
	}()
	bound, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	last := message{Report: &handoffhttp.Report{}}
	if way == wayBaton || way == wayDelay {
		cfg := &handoffhttp.Config{}
		if way == wayDelay {
			cfg.Delay, cfg.LingerTimeout = delay, delay
		}
		s := handoffhttp.New(srv, cfg)
		mux.Handle("GET /ready", s.Readiness())
		err = s.Run(ctx, ln)
		last.Report = s.Linger(ctx)
	} else {
		mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
		go func() { _ = srv.Serve(ln) }() // ends below
		<-ctx.Done()
		switch way {
		case wayDrain:
			if _, err = member.Drain(bound); err == nil {
				err = srv.Shutdown(bound)
			}
		case wayShutdown, wayPlain:
			err = srv.Shutdown(bound)
		case wayClose:
			err = srv.Close()
		}
	}
	last.Served = served.Load()
	say(last)
	return err
}

func say(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(append(b, '\n')) // the driver may be gone
}

// postMain is the client of POSTs: it runs until SIGINT and writes what it has counted.
func postMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	stats, err := load.Run(ctx, load.Config{Pause: -1, Targets: []load.Target{
		{Name: "post", Kind: load.Post, Network: "tcp", Address: args[0], Workers: workers},
	}})
	if err == nil {
		say(stats)
	}
	return err
}
