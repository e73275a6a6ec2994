package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// loadMessage is a line on the clients' standard output.
type loadMessage struct {
	Kind string `json:"kind"` // "progress" or "final"
	load.Stats
}

const (
	kindProgress = "progress"
	kindFinal    = "final"
)

func loadCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	var (
		a        addresses
		dir      string
		workers  int
		duration time.Duration
		c        load.Config
	)
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&dir, "dir", "", "`folder` of the service, to read its addresses from")
	fs.StringVar(&a.TCP, "tcp", "", "`address` of the raw TCP protocol")
	fs.StringVar(&a.Unix, "unix", "", "`path` of the unix socket")
	fs.StringVar(&a.UDP, "udp", "", "`address` for datagrams")
	fs.StringVar(&a.HTTP, "http", "", "`address` of the HTTP server")
	fs.IntVar(&workers, "workers", 3, "clients of each protocol")
	fs.DurationVar(&duration, "duration", 0, "how long; zero means until standard input ends or a signal arrives")
	fs.DurationVar(&c.Pause, "pause", load.DefaultPause, "a client's pause between two connections")
	fs.IntVar(&c.Questions, "questions", load.DefaultQuestions, "questions on a connection that stays open")
	fs.DurationVar(&c.Spacing, "spacing", load.DefaultSpacing, "time between two of them")
	fs.DurationVar(&c.Timeout, "timeout", load.DefaultTimeout, "timeout of each step of an exchange")
	fs.DurationVar(&c.Every, "every", load.DefaultEvery, "time between two lines of progress")
	if err := parse(fs, args); err != nil {
		return err
	}
	if dir != "" {
		var err error
		if a, err = readAddresses(dir); err != nil {
			return fmt.Errorf("addresses of the service (is it running?): %w", err)
		}
	}
	c.Targets = targets(a, workers)
	if len(c.Targets) == 0 {
		fmt.Fprintln(stderr, "baton-demo load: no address: use -dir, or at least one of -tcp, -unix, -udp, -http")
		return errUsage
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	} else {
		end := endOf(stdin, true)
		go func() { // ends with ctx
			select {
			case <-end:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	out := json.NewEncoder(stdout)
	var broken error // the reader of standard output has gone
	c.Progress = func(s load.Stats) {
		if err := out.Encode(loadMessage{kindProgress, s}); err != nil && broken == nil {
			broken = err
			cancel()
		}
	}
	s, err := load.Run(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(broken, out.Encode(loadMessage{kindFinal, s}))
}

// targets returns what the clients do: new connections to each address, and connections
// that stay open, by the raw protocol and by POST requests.
func targets(a addresses, workers int) []load.Target {
	var ts []load.Target
	add := func(name string, kind load.Kind, network, address string) {
		if address != "" {
			ts = append(ts, load.Target{Name: name, Kind: kind, Network: network, Address: address, Workers: workers})
		}
	}
	add("tcp", load.Once, "tcp", a.TCP)
	add("unix", load.Once, "unix", a.Unix)
	add("udp", load.Datagram, "udp", a.UDP)
	add("http", load.HTTP, "tcp", a.HTTP)
	add("http-keep", load.Post, "tcp", a.HTTP)
	add("tcp-open", load.Keep, "tcp", a.TCP)
	add("unix-open", load.Keep, "unix", a.Unix)
	add("tcp-marked", load.Marked, "tcp", a.TCP)
	return ts
}
