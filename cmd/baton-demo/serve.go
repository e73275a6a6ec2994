package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// serveConfig are the flags of serve.
type serveConfig struct {
	mode              handoff.Mode
	dir               string
	addresses         addresses
	probation, linger time.Duration
	untilEOF, verbose bool
	stay              bool
}

// message is a line on the service's standard output. All processes of its line
// write to the same.
type message struct {
	Kind       string          `json:"kind"` // "serving", "exit", or a handoff.EventKind
	PID        int             `json:"pid"`
	Version    string          `json:"version"`
	Generation uint64          `json:"generation,omitempty"`
	Addresses  *addresses      `json:"addresses,omitempty"`
	Report     *handoff.Report `json:"report,omitempty"`
	Reason     string          `json:"reason,omitempty"`
}

// The kinds of message that are no handoff events.
const (
	kindServing = "serving" // listens on all sockets and is ready
	kindExit    = "exit"    // the process is about to end
)

func serveCommand(args []string, stdout, stderr io.Writer) error {
	var c serveConfig
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.SetOutput(stderr)
	c.mode = handoff.Inherit
	fs.Func("mode", "how a successor gets the sockets: "+modeNames()+" (default "+string(c.mode)+")", func(s string) error {
		c.mode = handoff.Mode(s)
		if !slices.Contains(modes(), c.mode) {
			return errors.New("want " + modeNames())
		}
		return nil
	})
	fs.StringVar(&c.dir, "dir", "", "`folder` for the PID file, the sockets and the addresses; required, created if missing")
	fs.StringVar(&c.addresses.TCP, "tcp", "127.0.0.1:0", "`address` of the raw TCP protocol")
	fs.StringVar(&c.addresses.Unix, "unix", "", "`path` of the same on a unix socket (default DIR/"+unixName+")")
	fs.StringVar(&c.addresses.UDP, "udp", "127.0.0.1:0", "`address` for datagrams")
	fs.StringVar(&c.addresses.HTTP, "http", "127.0.0.1:0", "`address` of the HTTP server")
	fs.DurationVar(&c.probation, "probation", handoff.DefaultProbation, "time in which an upgrade can be rolled back")
	fs.DurationVar(&c.linger, "linger", handoff.DefaultLingerTimeout, "time that open connections get after an upgrade")
	fs.BoolVar(&c.untilEOF, "until-eof", false, "end when standard input ends")
	fs.BoolVar(&c.stay, "stay", false, "after a handover wait for SIGTERM before the end: in a pod, whose container would be started again")
	fs.BoolVar(&c.verbose, "v", false, "log each step to standard error")
	if err := parse(fs, args); err != nil {
		return err
	}
	if c.dir == "" {
		fmt.Fprintln(stderr, "baton-demo serve: -dir is required: name a folder for the PID file and the sockets")
		return errUsage
	}
	var err error
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if c.addresses.Unix == "" {
		c.addresses.Unix = filepath.Join(c.dir, unixName)
	}
	return serve(context.Background(), c, stdout, stderr)
}

// serve runs one process of the service: from New, which gets the
// predecessor's sockets, to Shutdown, which waits for open connections.
func serve(ctx context.Context, c serveConfig, stdout, stderr io.Writer) error {
	ignorePipe()
	out := &announcer{w: stdout}
	level := slog.LevelWarn
	if c.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})).With("version", version, "pid", os.Getpid())

	up, err := handoff.New(&handoff.Config{
		Mode:          c.mode,
		ControlSocket: filepath.Join(c.dir, controlName),
		PIDFile:       filepath.Join(c.dir, pidName),
		Version:       version,
		Probation:     c.probation,
		LingerTimeout: c.linger,
		MaxLingering:  8,
		Logger:        handoff.SlogLogger(log),
		OnEvent: func(e handoff.Event) {
			out.say(message{Kind: string(e.Kind), Generation: e.Generation, Report: e.Report, Reason: e.Reason})
		},
	})
	if err != nil {
		return err
	}
	s, err := listen(ctx, up, c.addresses)
	if err != nil {
		return errors.Join(err, up.Close())
	}
	s.start()
	err = up.Ready()
	if err == nil {
		err = s.addresses.write(c.dir)
	}
	if err != nil {
		err = errors.Join(err, up.Close())
		s.wait()
		s.web.Linger(ctx)
		return err
	}
	out.say(message{Kind: kindServing, Generation: up.Generation(), Addresses: &s.addresses})

	stopped, end := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer end()
	select {
	case <-up.Done():
		err = up.Err() // nil: a successor is committed, or a signal came
	case <-endOf(os.Stdin, c.untilEOF):
		err = errors.Join(errors.New("standard input has ended"), up.Close())
	}
	s.loops.Go(func() { s.web.Linger(ctx) }) // ends with the last HTTP connection; Shutdown waits for it
	err = errors.Join(err, up.Shutdown(ctx))
	s.wait()
	_, replaced := up.Successor()
	if !replaced && up.Err() == nil { // no successor continues
		if rmErr := os.Remove(filepath.Join(c.dir, addressesName)); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	last := message{Kind: kindExit, Generation: up.Generation()}
	if err != nil {
		last.Reason = err.Error()
	}
	out.say(last)
	if c.stay && replaced {
		<-stopped.Done()
	}
	return err
}

// endOf returns a channel that is closed when f has ended, if that is wanted.
// The goroutine ends with f, or with the process.
func endOf(f io.Reader, wanted bool) <-chan struct{} {
	if !wanted {
		return nil
	}
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, f) // any end is the end
		close(end)
	}()
	return end
}

// sockets are the open sockets of the service and what serves them.
type sockets struct {
	up        *handoff.Upgrader
	tcp, unix *handoff.Listener
	udp       *handoff.PacketConn
	http      net.Listener
	service   *load.Service
	web       *handoffhttp.Server
	addresses addresses
	loops     sync.WaitGroup
}

// listen gets the predecessor's sockets, or binds new ones.
func listen(ctx context.Context, up *handoff.Upgrader, a addresses) (*sockets, error) {
	s := &sockets{up: up}
	var errs [4]error
	s.tcp, errs[0] = up.Listen(ctx, "tcp", a.TCP)
	s.unix, errs[1] = up.Listen(ctx, "unix", a.Unix)
	s.udp, errs[2] = up.ListenPacket(ctx, "udp", a.UDP)
	// By name: it has the same address as the TCP one when both are given as
	// port 0.
	web, err := up.ListenNamed(ctx, "http", "tcp", a.HTTP)
	errs[3] = err
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	s.addresses = addresses{
		TCP: s.tcp.Addr().String(), Unix: s.unix.Addr().String(),
		UDP: s.udp.LocalAddr().String(), HTTP: web.Addr().String(),
	}
	s.service = &load.Service{
		Version: version, Generation: up.Generation,
		Ending:   up.Done(), // of connections that the service may end
		Patience: time.Minute,
	}
	server := &http.Server{Handler: s.service, ReadHeaderTimeout: 10 * time.Second}
	s.web = handoffhttp.New(server, &handoffhttp.Config{Upgrader: up})
	s.http = s.web.Wrap(web)
	return s, nil
}

// start serves all sockets. The loops end when the upgrader is done.
func (s *sockets) start() {
	for _, ln := range []*handoff.Listener{s.tcp, s.unix} {
		s.loops.Go(func() { s.acceptAll(ln) })
	}
	s.loops.Go(func() { _ = s.service.ServePackets(s.udp) }) // the error is the end
	s.loops.Go(func() { _ = s.web.Serve(s.http) })           // likewise
}

// wait waits for the end of the loops, which Done brings, and of the linger once
// that has begun.
func (s *sockets) wait() { s.loops.Wait() }

// acceptAll serves the connections of one listener. They end by themselves:
// Shutdown waits for them.
func (s *sockets) acceptAll(ln *handoff.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = s.service.ServeConn(c) // the client counts what fails
		}()
	}
}

// announcer writes messages, a line each.
type announcer struct {
	mu sync.Mutex
	w  io.Writer
}

func (a *announcer) say(m message) {
	m.PID, m.Version = os.Getpid(), version
	b, err := json.Marshal(m)
	if err != nil {
		m = message{Kind: m.Kind, PID: m.PID, Version: m.Version, Reason: err.Error()}
		b, _ = json.Marshal(m) // nothing in it can fail
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// One write: lines of several processes do not mix (PIPE_BUF, pipe(7)). A
	// reader that is gone does not stop the service.
	_, _ = a.w.Write(append(b, '\n'))
}
