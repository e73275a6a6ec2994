package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// The service's settings, in its environment and in files that change while it runs.
const (
	envName      = "NAME"          // Config.Name; set by the template unit itself
	envMode      = "APP_MODE"      // Config.Mode
	envListen    = "APP_LISTEN"    // addresses, as address.String has them, separated by blanks
	envProbation = "APP_PROBATION" // Config.Probation
	envLinger    = "APP_LINGER"    // Config.LingerTimeout
	versionPath  = "/etc/app/version"
	planPath     = "/etc/app/plan" // what a process does at its start, if it is not to serve
	ledgerDir    = "/run/app-ledger"
)

// The plans.
const (
	planExit = "exit" // say why, and end
	planWait = "wait" // go on when the plan is another one
)

// reason is what a process that follows planExit says.
const reason = "app: the database is of another version"

// protocols of an address.
const (
	protoLines   = "lines"   // load's, on a stream
	protoHTTP    = "http"    // POST requests
	protoPackets = "packets" // datagrams
)

// An address is where the service listens, and what it speaks there. A name is
// that of a socket unit's FileDescriptorName; empty means by address.
type address struct{ proto, name, network, address string }

func (a address) String() string {
	return strings.Join([]string{a.proto, a.name, a.network, a.address}, "=")
}

func parseAddress(s string) (address, error) {
	f := strings.SplitN(s, "=", 4)
	if len(f) != 4 {
		return address{}, fmt.Errorf("%s has %q, want PROTOCOL=NAME=NETWORK=ADDRESS", envListen, s)
	}
	return address{f[0], f[1], f[2], f[3]}, nil
}

// app is a process of the service.
type app struct {
	up      *handoff.Upgrader
	notes   *ledger
	service *load.Service
	web     []*handoffhttp.Server
	start   []func() // serves a socket until the end
	loops   sync.WaitGroup
}

// serviceMain is a process of the service, like the main function of a real one: it
// listens, is ready, and ends on the stop signal.
func serviceMain() error {
	for waits := true; waits; {
		switch plan, _ := os.ReadFile(planPath); strings.TrimSpace(string(plan)) { // none is fine
		case planExit:
			return errors.New(reason)
		case planWait:
			time.Sleep(pollEvery)
		default:
			waits = false
		}
	}
	version, err := os.ReadFile(versionPath)
	if err != nil {
		return err
	}
	cfg := &handoff.Config{
		Mode: handoff.Mode(os.Getenv(envMode)), Name: os.Getenv(envName), Version: strings.TrimSpace(string(version)),
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: os.Stderr, DisableTime: true}), // the journal has the time
	}
	for env, d := range map[string]*time.Duration{envProbation: &cfg.Probation, envLinger: &cfg.LingerTimeout} {
		if text := os.Getenv(env); text != "" {
			if *d, err = time.ParseDuration(text); err != nil {
				return err
			}
		}
	}
	a := &app{}
	if a.notes, err = openLedger(ledgerDir, os.Getpid()); err != nil {
		return err
	}
	if a.up, err = handoff.New(cfg); err != nil {
		return err
	}
	a.service = &load.Service{Version: cfg.Version, Generation: a.up.Generation, Ending: a.up.Done(), Patience: time.Minute}
	ctx := context.Background()
	for text := range strings.FieldsSeq(os.Getenv(envListen)) {
		if err := a.listen(ctx, text); err != nil {
			return errors.Join(err, a.up.Close())
		}
	}
	for _, serve := range a.start {
		a.loops.Go(serve) // ends with Done
	}
	if err := a.up.Ready(); err != nil {
		return errors.Join(err, a.up.Close())
	}
	<-a.up.Done()
	a.loops.Wait()
	for _, web := range a.web {
		a.loops.Go(func() { web.Linger(ctx) }) // ends with the last connection; Shutdown waits for it
	}
	err = errors.Join(a.up.Err(), a.up.Shutdown(ctx))
	a.loops.Wait()
	return err
}

// listen gets a socket: systemd's, the predecessor's, or a new one.
func (a *app) listen(ctx context.Context, text string) error {
	at, err := parseAddress(text)
	if err != nil {
		return err
	}
	if at.proto == protoPackets {
		pc, err := a.packetConn(ctx, at)
		if err != nil {
			return err
		}
		a.start = append(a.start, func() { _ = a.service.ServePackets(pc) }) // the error is the end
		return nil
	}
	ln, err := a.listener(ctx, at)
	if err != nil {
		return err
	}
	if at.proto == protoLines {
		a.start = append(a.start, func() { a.acceptAll(ln) })
		return nil
	}
	srv := &http.Server{Handler: a.service, ReadHeaderTimeout: 10 * time.Second, ConnState: a.note}
	web := handoffhttp.New(srv, &handoffhttp.Config{Upgrader: a.up})
	wrapped := web.Wrap(ln)
	a.web = append(a.web, web)
	a.start = append(a.start, func() { _ = web.Serve(wrapped) }) // the error is the end
	return nil
}

func (a *app) listener(ctx context.Context, at address) (*handoff.Listener, error) {
	if at.name == "" {
		return a.up.Listen(ctx, at.network, at.address)
	}
	return a.up.ListenNamed(ctx, at.name, at.network, at.address)
}

func (a *app) packetConn(ctx context.Context, at address) (*handoff.PacketConn, error) {
	if at.name == "" {
		return a.up.ListenPacket(ctx, at.network, at.address)
	}
	return a.up.ListenPacketNamed(ctx, at.name, at.network, at.address)
}

// note notes connections of an HTTP server.
func (a *app) note(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		a.notes.got(c)
	case http.StateClosed, http.StateHijacked:
		a.notes.left(c)
	}
}

// acceptAll serves the connections of a listener. They end by themselves:
// Shutdown waits for them.
func (a *app) acceptAll(ln *handoff.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		a.notes.got(c)
		go func() { // ends with the connection
			defer c.Close()
			defer a.notes.left(c)
			_ = a.service.ServeConn(c) // the client counts what fails
		}()
	}
}
