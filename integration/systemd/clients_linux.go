package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// clientMessage is a line on the standard output of the clients.
type clientMessage struct {
	Stats  *load.Stats   `json:"stats,omitempty"`
	Final  bool          `json:"final,omitempty"`
	Failed *load.Failure `json:"failed,omitempty"`
}

// clientsMain is the process of the clients: it asks until its standard input
// ends, and never twice.
func clientsMain(args []string) error {
	var c load.Config
	if len(args) != 1 {
		return errors.New("clients: want the targets as JSON")
	}
	if err := json.Unmarshal([]byte(args[0]), &c.Targets); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin) // any end is the end
		cancel()
	}()
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(m clientMessage) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(m); err != nil {
			cancel() // the reader has gone
		}
	}
	c.Every = 50 * time.Millisecond
	c.Timeout = 60 * time.Second // who waits through a restart waits
	c.Progress = func(s load.Stats) { say(clientMessage{Stats: &s}) }
	c.Failed = func(f load.Failure) { say(clientMessage{Failed: &f}) }
	s, err := load.Run(ctx, c)
	if err != nil {
		return err
	}
	say(clientMessage{Stats: &s, Final: true})
	return nil
}

// clients is such a process, as the driver sees it.
type clients struct {
	stdin io.Closer
	done  chan struct{} // closed when it has ended

	mu       sync.Mutex
	news     chan struct{} // closed and replaced when something below has changed
	stats    load.Stats
	final    bool
	failures []load.Failure
	err      error
}

// startClients starts clients in the machine and waits until each target has
// answered.
func (r *rig) startClients(ctx context.Context, targets ...load.Target) (*clients, error) {
	spec, err := json.Marshal(targets)
	if err != nil {
		return nil, err
	}
	cmd := r.m.Command(context.WithoutCancel(ctx), "env", r.role("clients"), "/usr/local/bin/"+appName, string(spec))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &clients{stdin: stdin, done: make(chan struct{}), news: make(chan struct{})}
	go func() { // ends with the process
		defer close(c.done)
		sc := bufio.NewScanner(stdout)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			var m clientMessage
			if json.Unmarshal(sc.Bytes(), &m) == nil {
				c.receive(m)
			}
		}
		_, _ = io.Copy(io.Discard, stdout) // after a line that was too long
		err := cmd.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.err = err
		close(c.news)
		c.news = make(chan struct{})
	}()
	r.clients = append(r.clients, c)
	return c, c.until(ctx, "first answers", func(s load.Stats) bool {
		for _, t := range targets {
			if s.Targets[t.Name].AnsweredLast == "" {
				return false
			}
		}
		return true
	})
}

func (c *clients) receive(m clientMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Stats != nil {
		c.stats, c.final = *m.Stats, m.Final
	}
	if m.Failed != nil {
		c.failures = append(c.failures, *m.Failed)
	}
	close(c.news)
	c.news = make(chan struct{})
}

// latest returns what was counted so far.
func (c *clients) latest() load.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// until waits until ok says so of what was counted.
func (c *clients) until(ctx context.Context, what string, ok func(load.Stats) bool) error {
	for {
		c.mu.Lock()
		stats, news := c.stats, c.news
		c.mu.Unlock()
		if ok(stats) {
			return nil
		}
		select {
		case <-news:
		case <-c.done:
			return fmt.Errorf("%s: the clients have ended: %v", what, c.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// answeredBy waits until a version answers on all targets that follow the service
// without delay.
func (c *clients) answeredBy(ctx context.Context, version string) error {
	return c.until(ctx, "answers of "+version, func(s load.Stats) bool {
		for _, t := range s.Targets {
			if t.Kind.Short() && t.AnsweredLast != version {
				return false
			}
		}
		return true
	})
}

// further waits until each target that follows the service without delay has been
// answered n times more.
func (c *clients) further(ctx context.Context, n uint64) error {
	before := c.latest()
	return c.until(ctx, "further answers", func(s load.Stats) bool {
		for name, t := range s.Targets {
			if t.Kind.Short() && t.Questions < before.Targets[name].Questions+n {
				return false
			}
		}
		return true
	})
}

// stop ends the clients and returns what they have counted.
func (c *clients) stop(ctx context.Context) (load.Stats, []load.Failure, error) {
	_ = c.stdin.Close() // what ends them; a second time does no harm
	select {
	case <-c.done:
	case <-ctx.Done():
		return c.latest(), nil, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.final {
		return c.stats, c.failures, fmt.Errorf("the clients have ended without a result: %v", c.err)
	}
	return c.stats, c.failures, nil
}
