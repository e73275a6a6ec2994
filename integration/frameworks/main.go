package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// services returns the services by their names.
func services() map[string]func(ctx context.Context, up *handoff.Upgrader, address string) error {
	return map[string]func(ctx context.Context, up *handoff.Upgrader, address string) error{
		"gin":               serveGin,
		"echo":              serveEcho,
		"chi":               serveChi,
		"gorilla/mux":       serveMux,
		"connect":           serveConnect,
		"coder/websocket":   serveCoder,
		"gorilla/websocket": serveGorilla,
		"fiber":             serveFiber,
		"dns":               serveDNS,
		"dns, tcp":          serveDNSOverTCP,
		"ssh":               serveSSH,
		"smtp":              serveSMTP,
		"mqtt":              serveMQTT,
		"control":           serveControl,
	}
}

// A step is an event of the Upgrader, or the end of the process, in the output.
type step struct {
	PID    int             `json:"pid"`
	Kind   string          `json:"kind"` // an EventKind, or "exit"
	Err    string          `json:"err,omitempty"`
	Report *handoff.Report `json:"report,omitempty"`
}

func main() {
	names := strings.Join(slices.Sorted(maps.Keys(services())), "\n  ")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: frameworks [flags] NAME\n\n  %s\n\n", names)
		flag.PrintDefaults()
	}
	address := flag.String("address", "127.0.0.1:8080", "`address` to serve")
	mode := flag.String("mode", string(handoff.Takeover), "`mode` of an upgrade: inherit, takeover or drain")
	control := flag.String("control", "", "`path` of the control socket")
	probation := flag.Duration("probation", 0, "`time` in which the predecessor can take over again; zero means the default")
	flag.Parse()
	serve := services()[flag.Arg(0)]
	if serve == nil || *control == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(serve, *address, handoff.Mode(*mode), *control, *probation); err != nil {
		fmt.Fprintln(os.Stderr, "frameworks:", err)
		os.Exit(1)
	}
}

func run(serve func(context.Context, *handoff.Upgrader, string) error, address string, mode handoff.Mode, control string, probation time.Duration) error {
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex
	say := func(s step) {
		mu.Lock()
		defer mu.Unlock()
		s.PID = os.Getpid()
		_ = out.Encode(s) // the service runs on where no process reads this
	}
	up, err := handoff.New(&handoff.Config{
		Mode: mode, ControlSocket: control, Probation: probation,
		OnEvent: func(e handoff.Event) { say(step{Kind: string(e.Kind), Err: e.Reason, Report: e.Report}) },
	})
	if err != nil {
		return err
	}
	if err := serve(context.Background(), up, address); err != nil {
		return err
	}
	say(step{Kind: "exit"})
	return nil
}

// answer is what each service answers to a request.
func answer(request []byte) string { return fmt.Sprintf("%d %s", os.Getpid(), request) }
