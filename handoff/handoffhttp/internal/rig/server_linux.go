package rig

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// The ways in which a service ends the process that is replaced.
const (
	Baton     = "baton"     // handoffhttp
	Shutdown  = "shutdown"  // http.Server.Shutdown, on package handoff
	Tableflip = "tableflip" // http.Server.Shutdown on tableflip, as its documentation shows it
)

// Settings configure a service process. They are in its environment, which its
// successors inherit.
type Settings struct {
	How       string
	Mode      handoff.Mode
	Dir       string // for the control socket
	Addr      string
	Probation time.Duration
	Linger    time.Duration
	Protocol  string        // "" HTTP/1, "tls", "h2", "h2c"; "own tls" has a listener of crypto/tls
	Cert, Key string        // files
	Static    string        // a file to serve at /static
	NoFile    uint64        // limit of descriptors in later generations; zero means none
	Stay      bool          // handoffhttp.Config's
	MoveTLS   bool          // handoffhttp.Config's
	Delay     time.Duration // handoffhttp.Config's
	Stubborn  bool          // what handlers have taken doesn't say goodbye
	Verbose   bool
}

// EnvSettings is the variable with the Settings, in JSON.
const EnvSettings = "BATON_RIG"

// A Message is a line that a service process writes to its standard output.
type Message struct {
	PID    int
	Gen    uint64
	Kind   string // "listening", an EventKind, "exit", "failed"
	Addr   string
	Err    string
	Report *handoff.Report
	Linger *handoffhttp.Report
	Time   time.Time
	Counts map[string]int // of things that handlers count
	Grown  int64          // bytes by which the process has grown at most since its commit
}

// A Process is one process of a service.
type Process struct {
	Settings
	up atomic.Pointer[handoff.Upgrader] // events come before New returns

	ready atomic.Pointer[readiness]

	mu     sync.Mutex
	counts map[string]int
	grown  func() int64 // since commit
	out    sync.Mutex
	// Handle may add to the handlers, in a test.
	Handle func(p *Process, mux *http.ServeMux)
	// Config may change how connections are looked after.
	Config func(p *Process, c *handoffhttp.Config)
	// Server may change the server, in a test.
	Server func(p *Process, srv *http.Server)
	// OnShutdown is registered by RegisterOnShutdown, if it is not nil.
	OnShutdown func()
}

type readiness struct{ http.Handler }

// ServerMain is the service process.
func ServerMain([]string) { (&Process{}).Main() }

// Main runs the process until it is replaced or stopped.
func (p *Process) Main() {
	if err := p.run(); err != nil {
		p.Say(Message{Kind: "failed", Err: err.Error()})
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// Say writes a line.
func (p *Process) Say(m Message) {
	m.PID, m.Time = os.Getpid(), time.Now()
	if up := p.up.Load(); up != nil && m.Gen == 0 {
		m.Gen = up.Generation()
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	p.out.Lock()
	defer p.out.Unlock()
	_, _ = os.Stdout.Write(append(b, '\n'))
}

// Count adds to a counter of the exit message.
func (p *Process) Count(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts = make(map[string]int)
	}
	p.counts[what]++
}

// Upgrader returns the one that the process stands on.
func (p *Process) Upgrader() *handoff.Upgrader { return p.up.Load() }

// Generation returns the generation of the process.
func (p *Process) Generation() uint64 { return p.Upgrader().Generation() }

func (p *Process) run() error {
	if err := json.Unmarshal([]byte(os.Getenv(EnvSettings)), &p.Settings); err != nil {
		return err
	}
	if p.How == Tableflip {
		return p.runTableflip()
	}
	level := hclog.Warn
	if p.Verbose {
		level = hclog.Debug
	}
	log := hclog.New(&hclog.LoggerOptions{Level: level, Name: strconv.Itoa(os.Getpid())})
	up, err := handoff.New(&handoff.Config{
		Mode: p.Mode, ControlSocket: p.Dir + "/ctl/s", Logger: log,
		Probation: p.Probation, LingerTimeout: p.Linger,
		OnEvent: func(e handoff.Event) {
			m := Message{Kind: string(e.Kind), Gen: e.Generation, Err: e.Reason}
			if e.Kind == handoff.EventStopped || e.Kind == handoff.EventUpgradeFailed {
				m.Report = e.Report
			}
			if e.Kind == handoff.EventCommitted {
				p.mu.Lock()
				p.grown = watchMemory()
				p.mu.Unlock()
			}
			p.Say(m)
		},
	})
	if err != nil {
		return err
	}
	p.up.Store(up)
	if p.NoFile > 0 && up.Generation() > 1 {
		if err := limitFiles(p.NoFile); err != nil {
			return err
		}
	}
	ctx := context.Background()
	ln, err := up.Listen(ctx, "tcp", p.Addr)
	if err != nil {
		return err
	}
	p.Say(Message{Kind: "listening", Addr: ln.Addr().String()})
	srv := p.server(strconv.FormatUint(up.Generation(), 10))
	var linger *handoffhttp.Report
	switch p.How {
	case Shutdown:
		err = p.serveShutdown(srv, ln)
	default:
		c := &handoffhttp.Config{Upgrader: up, Logger: log, Stay: p.Stay, MoveTLS: p.MoveTLS, Delay: p.Delay}
		if p.Config != nil {
			p.Config(p, c)
		}
		s := handoffhttp.New(srv, c)
		p.ready.Store(&readiness{s.Readiness()})
		if p.Protocol == "tls" || p.Protocol == "h2" {
			err = s.RunTLS(ctx, p.Cert, p.Key, ln)
		} else {
			var own net.Listener = ln
			if p.Protocol == "own tls" {
				cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
				if err != nil {
					return err
				}
				own = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
			}
			err = s.Run(ctx, own)
		}
		linger = s.Linger(ctx)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := Message{Kind: "exit", Linger: linger, Counts: p.counts}
	if p.grown != nil {
		m.Grown = p.grown()
	}
	p.Say(m)
	return nil
}

// watchMemory returns a function that returns how much more memory the process has used
// at most since now, by the kernel's account (proc_pid_clear_refs(5),
// proc_pid_status(5)).
func watchMemory() func() int64 {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // resets VmHWM
	began := statusBytes("VmRSS:")
	return func() int64 { return statusBytes("VmHWM:") - began }
}

func statusBytes(what string) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), what)
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// serveShutdown is the control: what a server does without handoffhttp.
func (p *Process) serveShutdown(srv *http.Server, ln net.Listener) error {
	failed := make(chan error, 1)
	go func() {
		if p.Protocol == "tls" || p.Protocol == "h2" {
			failed <- srv.ServeTLS(ln, p.Cert, p.Key)
			return
		}
		failed <- srv.Serve(ln)
	}()
	up := p.Upgrader()
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = srv.Shutdown(ctx)
	<-failed
	return errors.Join(up.Err(), up.Shutdown(ctx))
}

// runTableflip follows tableflip's example for net/http.
func (p *Process) runTableflip() error {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer upg.Stop()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR2, syscall.SIGTERM)
	go func() {
		for s := range sig {
			if s == syscall.SIGTERM {
				upg.Stop()
				return
			}
			if err := upg.Upgrade(); err != nil {
				p.Say(Message{Kind: "upgrade-failed", Err: err.Error()})
			} else {
				p.Say(Message{Kind: "committed"})
			}
		}
	}()
	ln, err := upg.Listen("tcp", p.Addr)
	if err != nil {
		return err
	}
	p.Say(Message{Kind: "listening", Addr: ln.Addr().String()})
	srv := p.server(strconv.Itoa(os.Getpid()))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln)
	}()
	if err := upg.Ready(); err != nil {
		return err
	}
	p.Say(Message{Kind: "owner"})
	<-upg.Exit()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = srv.Shutdown(ctx)
	<-served
	p.Say(Message{Kind: "exit"})
	return nil
}

// server returns the service's server. It answers a POST with the length of its
// body.
func (p *Process) server(gen string) *http.Server {
	mux := http.NewServeMux()
	gens := []string{gen}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header()["Gen"] = gens
		var b [20]byte
		_, _ = w.Write(strconv.AppendInt(b[:0], n, 10))
	})
	mux.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) { p.ready.Load().ServeHTTP(w, r) })
	if p.Static != "" {
		mux.HandleFunc("/static", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Gen"] = gens
			http.ServeFile(w, r, p.Static)
		})
	}
	if p.Handle != nil {
		p.Handle(p, mux)
	}
	srv := &http.Server{Handler: mux}
	if p.Server != nil {
		p.Server(p, srv)
	}
	if p.OnShutdown != nil {
		srv.RegisterOnShutdown(p.OnShutdown)
	}
	if p.Protocol == "h2c" {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	if p.Protocol == "tls" {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
	}
	return srv
}

// limitFiles sets the limit of open descriptors, hard and soft.
func limitFiles(n uint64) error {
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}))
}
