//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// serverResult is what the servers know of their drains.
type serverResult struct {
	HalfOpen  int
	Accepted  int64
	Odd       int // reports that are not those of a steered drain without loss
	Durations []time.Duration
	Settles   []time.Duration
}

func (r *serverResult) add(s serverResult) {
	r.HalfOpen += s.HalfOpen
	r.Accepted += s.Accepted
	r.Odd += s.Odd
	r.Durations = append(r.Durations, s.Durations...)
	r.Settles = append(r.Settles, s.Settles...)
}

// serve answers until in ends. After the first line of in, members leave one by
// one, and others take their place.
func serve(cfg config, in io.Reader, out io.Writer) error {
	ctx := context.Background()
	g, err := reuseport.ListenGroup(ctx, cfg.Network, cfg.Address, &reuseport.Config{Members: cfg.Members})
	if err != nil {
		return err
	}
	defer g.Close()
	var served atomic.Int64
	for _, l := range g.Members() {
		go echo(l, &served)
	}
	fmt.Fprintln(out, g.Addr())
	lines := bufio.NewReader(in)
	if _, err := lines.ReadString('\n'); err != nil {
		return err
	}
	var r serverResult
	report := time.Now()
	for i := range cfg.Drains {
		// The load decides how fast it goes.
		for served.Load() < int64(i*cfg.PerDrain/cfg.Processes) {
			time.Sleep(time.Millisecond)
		}
		l, err := g.Add(ctx)
		if err != nil {
			return err
		}
		go echo(l, &served)
		oldest := g.Members()[0]
		if cfg.Way == "close" {
			err = oldest.Close()
		} else {
			err = r.drain(ctx, oldest)
		}
		if err != nil {
			return err
		}
		if time.Since(report) > 5*time.Second {
			report = time.Now()
			fmt.Fprintf(os.Stderr, "%s: %d of %d left, %d connections served\n", cfg.Way, i+1, cfg.Drains, served.Load())
		}
	}
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, lines) // the clients end first
	return err
}

func (r *serverResult) drain(ctx context.Context, l *reuseport.Listener) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rep, err := l.Drain(ctx)
	if err != nil {
		return fmt.Errorf("%+v: %w", rep, err)
	}
	r.HalfOpen += rep.HalfOpen
	r.Accepted += rep.Accepted
	r.Durations = append(r.Durations, rep.Duration)
	r.Settles = append(r.Settles, rep.Settle)
	if rep.Strategy != reuseport.StrategySteer || rep.LossPossible || rep.Left != 0 {
		r.Odd++
		fmt.Fprintf(os.Stderr, "%+v\n", rep)
	}
	return nil
}

func echo(l *reuseport.Listener, served *atomic.Int64) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		served.Add(1)
		go func() { // ends with the client
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}
