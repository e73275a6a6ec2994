package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/netlab"
)

// A run is the handovers of one way to end, and what its clients have counted.
type run struct {
	Way       string            `json:"way"`
	Where     string            `json:"where"`
	User      int               `json:"user"`
	Want      int               `json:"-"` // handovers
	Least     uint64            `json:"-"` // requests
	RTT       time.Duration     `json:"-"`
	Handovers int               `json:"handovers"`
	Requests  uint64            `json:"requests"`
	Failed    uint64            `json:"failed"`
	By        map[string]uint64 `json:"failed_by"`
	Refused   uint64            `json:"refused"` // of Failed, by GOAWAY
	Cut       uint64            `json:"cut"`
	Lossy     int               `json:"drains_that_may_lose"`
	Reason    string            `json:"reason,omitempty"` // of the last of them
	Linger    []time.Duration   `json:"linger"`           // from SIGTERM to the end, of each
	Seconds   float64           `json:"seconds"`
	Error     string            `json:"error,omitempty"`
}

// An instance is a process of the service.
type instance struct {
	cmd    *exec.Cmd
	addr   string
	served atomic.Uint64
	last   message
	over   chan error
}

// place is where processes are started.
type place func(func())

// here is the driver's own network.
func here(f func()) { f() }

// startIn starts a process that ends with the driver. One in a namespace can't: the signal
// would come with the end of the thread that was there to start it.
func (r *run) startIn(in place, cmd *exec.Cmd, user int) (err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if user != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}
	}
	if r.RTT == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		runtime.LockOSThread() // the kernel watches the thread, which the driver keeps
	}
	in(func() { err = cmd.Start() })
	return err
}

// lab is a [netlab.TB] of a program.
type lab struct{ undo []func() }

func (l *lab) Helper()          {}
func (l *lab) Cleanup(f func()) { l.undo = append(l.undo, f) }
func (l *lab) Fatalf(format string, args ...any) {
	panic(fmt.Errorf(format, args...)) // recovered by do
}

// do fills r in.
func (r *run) do(ctx context.Context, progress func(string)) (err error) {
	began := time.Now()
	rig := &lab{}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("network: %v", p)
		}
		for _, f := range slices.Backward(rig.undo) {
			f()
		}
		r.Seconds = time.Since(began).Seconds()
	}()
	server, client, address := place(here), place(here), "127.0.0.1:0"
	if r.RTT > 0 {
		l := netlab.NewLink(rig, r.RTT/2)
		server, client, address = l.Server.Do, l.Client.Do, netlab.ServerAddrs[0].String()+":8080"
	}
	now, err := r.start(server, address)
	if err != nil {
		return err
	}
	defer func() { now.kill() }()
	clients, err := r.clients(client, now.addr)
	defer func() {
		for _, c := range clients {
			c.kill()
		}
	}()
	if err != nil {
		return err
	}
	var before uint64 // by those that have ended
	for r.Handovers < r.Want {
		next, err := r.start(server, now.addr)
		if err != nil {
			return err
		}
		old := now
		now = next
		if err := r.end(ctx, old); err != nil {
			return err
		}
		before += old.last.Served
		r.Handovers++
		progress(fmt.Sprintf("%s, %s: %d of %d handovers, %d requests", r.Way, r.Where, r.Handovers, r.Want, before))
		for least := r.Least * uint64(r.Handovers) / uint64(r.Want); before+now.served.Load() < least; {
			select {
			case err := <-now.over:
				return fmt.Errorf("an instance has ended: %w", errors.Join(err, errors.New("without a signal")))
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	for _, c := range clients {
		if err := r.count(ctx, c); err != nil {
			return err
		}
	}
	lossy := r.Lossy
	err = r.end(ctx, now)
	r.Lossy = lossy // no other member was left to get connections
	return err
}

// start starts an instance and waits until it listens.
func (r *run) start(in place, address string) (*instance, error) {
	i := &instance{cmd: self("service", address, r.Way), over: make(chan error, 1)}
	var log bytes.Buffer
	i.cmd.Stderr = &log
	out, err := i.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.startIn(in, i.cmd, r.User); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if lines.Scan() {
		var m message
		err = json.Unmarshal(lines.Bytes(), &m)
		i.addr = m.Addr
	}
	if err != nil || i.addr == "" {
		i.kill()
		return nil, fmt.Errorf("an instance does not start: %w: %s", errors.Join(err, i.cmd.Wait()), log.String())
	}
	go func() { // ends with the instance
		for lines.Scan() {
			var m message
			if json.Unmarshal(lines.Bytes(), &m) != nil {
				continue
			}
			i.served.Store(max(i.served.Load(), m.Served))
			if m.Report != nil {
				i.last = m
			}
		}
		err := i.cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, log.String())
		}
		i.over <- err
	}()
	return i, nil
}

func (i *instance) kill() { _ = i.cmd.Process.Kill() } // it may have ended

// end has an instance leave, and waits for its end.
func (r *run) end(ctx context.Context, i *instance) error {
	began := time.Now()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-i.over:
		if err == nil && i.last.Report == nil {
			err = errors.New("no report")
		}
		if err != nil {
			return fmt.Errorf("an instance that leaves: %w", err)
		}
	case <-ctx.Done():
		i.kill()
		return errors.Join(context.Cause(ctx), <-i.over)
	}
	r.Linger = append(r.Linger, time.Since(began))
	for _, n := range i.last.Report.Cut {
		r.Cut += n
	}
	for _, d := range i.last.Report.Drains {
		if d.LossPossible {
			r.Lossy++
			r.Reason = d.Reason
		}
	}
	return nil
}

// A client is a process of a kind.
type client struct {
	kind
	cmd  *exec.Cmd
	out  bytes.Buffer
	log  bytes.Buffer
	done chan struct{}
	once sync.Once
}

func (r *run) clients(in place, addr string) (cs []*client, err error) {
	for _, k := range kinds() {
		c := &client{kind: k, done: make(chan struct{})}
		if c.cmd, err = k.command("http://"+addr+"/", addr); err != nil {
			return cs, err
		}
		c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.log
		if err := r.startIn(in, c.cmd, os.Getuid()); err != nil {
			return cs, err
		}
		go func() { // ends with the client
			defer close(c.done)
			_ = c.cmd.Wait() // by a signal; its output says more
		}()
		cs = append(cs, c)
	}
	return cs, nil
}

func (c *client) kill() {
	c.once.Do(func() { _ = c.cmd.Process.Kill() }) // it may have ended
	<-c.done
}

// count ends a client and adds what it has counted.
func (r *run) count(ctx context.Context, c *client) error {
	early := false
	select {
	case <-c.done:
		early = true
	default:
		if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	out := append(c.out.Bytes(), c.log.Bytes()...)
	answered, failed, refused, err := c.kind.count(out)
	if early && failed == 0 {
		err = errors.Join(errors.New("has ended by itself"), err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, err, out)
	}
	r.Requests += answered + failed
	r.Failed += failed
	r.Refused += refused
	if failed > 0 {
		r.By[c.name] += failed
	}
	return nil
}
