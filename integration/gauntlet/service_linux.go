package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
)

// serviceSettings configure the processes of a service. They are in the environment,
// which successors inherit.
type serviceSettings struct {
	Mode  handoff.Mode
	Dir   string            // for the service's files
	State string            // for the PID file; may be a small file system
	Notes string            // for the ledger, the certificate and plans
	Addrs map[string]string // to listen at, by listener
	Ready time.Duration
	Until time.Duration // the linger limit
	// Shutdown has the HTTP server end as http.Server.Shutdown does, which loses
	// requests: the control.
	Shutdown bool
}

const envService = "BATON_GAUNTLET"

// message is a line that a process of the service writes.
type message struct {
	PID      int
	Kind     string // "started", "serving", "exit", "failed", "plan", "filter", "wrapper", "call" (the driver's), or an EventKind
	Gen      uint64 `json:",omitempty"`
	At       int64
	Addrs    map[string]string `json:",omitempty"`
	Err      string            `json:",omitempty"`
	Busy     bool              `json:",omitempty"` // Err is handoff.ErrInProgress
	Mismatch bool              `json:",omitempty"` // Err is handoff.ErrMismatch
	InUse    bool              `json:",omitempty"` // Err is EADDRINUSE
	Listener int               `json:",omitempty"` // of the filter of system calls
	Cut      map[string]uint64 `json:",omitempty"` // connections that were cut at the linger limit
	To       uint32            `json:",omitempty"` // the successor
	Moved    uint64            `json:",omitempty"` // connections that the successor has got
}

// process is a process of the service.
type process struct {
	serviceSettings
	plan  plan
	up    *handoff.Upgrader
	notes *ledger
	lines *load.Service
	out   sync.Mutex
}

// serviceMain is a process of the service.
func serviceMain() error {
	p := &process{}
	if os.Getenv(envFilter) != "" {
		if err := p.filter(); err != nil {
			return err
		}
	}
	p.say(message{Kind: "started"})
	err := p.run()
	m := message{Kind: "exit"}
	if err != nil {
		m = message{Kind: "failed", Err: err.Error(), Busy: errors.Is(err, handoff.ErrInProgress), Mismatch: errors.Is(err, handoff.ErrMismatch), InUse: errors.Is(err, syscall.EADDRINUSE)}
	}
	p.say(m)
	return err
}

// say writes a line, by one write(2).
func (p *process) say(m message) {
	m.PID, m.At = os.Getpid(), now()
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	p.out.Lock()
	defer p.out.Unlock()
	_, _ = os.Stdout.Write(append(b, '\n')) // the driver may be gone
}

func (p *process) run() error {
	if err := json.Unmarshal([]byte(os.Getenv(envService)), &p.serviceSettings); err != nil {
		return err
	}
	p.plan = readPlan(p.Notes)
	p.act(atStart)
	cfg := &handoff.Config{
		Mode: p.Mode, ControlSocket: filepath.Join(p.Dir, "ctl", "s"), PIDFile: filepath.Join(p.State, "pid"),
		ReadyTimeout: p.Ready, LingerTimeout: p.Until, Probation: p.plan.probation(),
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Name: strconv.Itoa(os.Getpid())}),
		OnEvent: func(e handoff.Event) {
			m := message{Kind: string(e.Kind), Gen: e.Generation, Err: e.Reason}
			if e.Report != nil {
				m.Cut, m.To, m.Moved = e.Report.CutBy, uint32(e.Report.Successor.PID), e.Report.Moved
			}
			p.say(m)
		},
		Healthy: func(context.Context) error {
			if p.plan.How == howUnhealthy {
				p.say(message{Kind: "plan"})
				return errors.New("a planned failure")
			}
			return nil
		},
	}
	var err error
	if p.up, err = handoff.New(cfg); err != nil {
		return err
	}
	if p.Addrs[lnOther] != "" {
		return p.serveOther()
	}
	p.act(atJoined)
	s := &servers{process: p}
	if err := s.listen(); err != nil {
		return errors.Join(err, p.up.Close())
	}
	p.act(atListening)
	return s.serve()
}

// note adds to the ledger.
func (p *process) note(e entry) {
	e.pid, e.at = uint32(os.Getpid()), now()
	p.notes.add(e.append(nil))
}

// served notes that a request is being answered.
func (p *process) served(token string) {
	n, err := parseNumber(token)
	if err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		return // a client finds that its answer is not the right one
	}
	p.note(entry{kind: entryServed, number: n})
}

// held notes that this process has got a connection.
func (p *process) held(nc net.Conn) {
	p.note(entry{kind: entryHeld, conn: connOf(nc.RemoteAddr(), nc.LocalAddr())})
}

// notingListener notes connections as they are accepted.
type notingListener struct {
	net.Listener
	p *process
}

func (l notingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.p.held(nc)
	}
	return nc, err
}

// tellingPacketConn tells of answers that can't be sent.
type tellingPacketConn struct{ net.PacketConn }

func (c tellingPacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(p, addr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%.6f %d, answer %q to %v: %v\n", seconds(now()), os.Getpid(), p, addr, err)
	}
	return n, err
}
