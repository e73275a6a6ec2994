package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// place is where a case runs.
type place struct {
	server, client *netlab.Namespace
	uid            int
	dial           []string // hosts
}

// matrixCase is one group, some of whose members leave once.
type matrixCase struct {
	place
	ctx             context.Context
	network, listen string
	way             string
	leaving, stay   int
	elsewhere       bool // the staying members belong to another Group, as to another process

	g, others *reuseport.Group
	leavers   []*reuseport.Listener
	stayers   []*reuseport.Listener
	address   []string
	accepting sync.WaitGroup
	served    atomic.Int64
}

// run makes the group, calls during, and closes all.
func (c *matrixCase) run(during func(c *matrixCase) tally) (seen tally, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c.ctx = ctx
	defer c.accepting.Wait()
	defer func() {
		for _, g := range []*reuseport.Group{c.g, c.others} {
			if g != nil {
				err = errors.Join(err, g.Close())
			}
		}
	}()
	c.server.DoAs(c.uid, func() { err = c.open(ctx) })
	if err != nil {
		return nil, err
	}
	for i := range c.dial {
		_, port, err := net.SplitHostPort(c.g.Addr().String())
		if err != nil {
			return nil, err
		}
		c.address = append(c.address, net.JoinHostPort(c.dial[i], port))
	}
	return during(c), nil
}

func (c *matrixCase) open(ctx context.Context) (err error) {
	cfg := &reuseport.Config{Members: c.leaving, Control: c.control}
	if !c.elsewhere {
		cfg.Members += c.stay
	}
	if c.g, err = reuseport.ListenGroup(ctx, c.network, c.listen, cfg); err != nil {
		return err
	}
	ms := c.g.Members()
	if c.elsewhere {
		cfg := &reuseport.Config{Members: c.stay, Control: c.control}
		if c.others, err = reuseport.ListenGroup(ctx, c.network, c.g.Addr().String(), cfg); err != nil {
			return err
		}
		c.leavers, c.stayers = ms, c.others.Members()
		return nil
	}
	// First, last and between: take every second as long as there are two
	// kinds.
	for i, m := range ms {
		if len(c.leavers) < c.leaving && (i%2 == 0 || len(c.stayers) == c.stay) {
			c.leavers = append(c.leavers, m)
		} else {
			c.stayers = append(c.stayers, m)
		}
	}
	return nil
}

func (c *matrixCase) control(_, _ string, rc syscall.RawConn) error { return nil }

func (c *matrixCase) accept(ls []*reuseport.Listener) {
	for _, l := range ls {
		c.accepting.Go(func() { // ends with l
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				c.served.Add(1)
				c.accepting.Go(func() { // ends with the client, or at the deadline
					defer nc.Close()
					_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
					answer(nc)
				})
			}
		})
	}
}

// leave takes the leaving members out.
func (c *matrixCase) leave() (err error) {
	c.server.DoAs(c.uid, func() { err = ways[c.way](c.ctx, c.g, c.leavers) })
	if err != nil {
		return fmt.Errorf("leave by %s: %w", c.way, err)
	}
	return nil
}

// connect dials n times, in turn over the addresses.
func (c *matrixCase) connect(n int, seen tally) (conns []net.Conn) {
	c.client.Do(func() {
		for i := range n {
			nc, err := net.DialTimeout("tcp", c.address[i%len(c.address)], 15*time.Second)
			seen.note(err)
			if err == nil {
				conns = append(conns, nc)
			}
		}
	})
	return conns
}

// tally counts what clients saw, by error.
type tally map[string]int

func (t tally) note(err error) {
	if err == nil {
		return
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		t[errno.Error()]++
	case errors.Is(err, os.ErrDeadlineExceeded):
		t["timeout"]++
	default:
		t[err.Error()]++
	}
}

func (t tally) lost() (n int) {
	for _, k := range t {
		n += k
	}
	return n
}

// ask sends a byte and reads it back.
func ask(nc net.Conn) error {
	_ = nc.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := nc.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(nc, make([]byte, 1))
	return err
}

func askAll(conns []net.Conn, seen tally) {
	for _, nc := range conns {
		seen.note(ask(nc))
		_ = nc.Close() // was read to its end
	}
}

// queued: the connections wait in the queues when the members begin to leave,
// and none was accepted.
func (c *matrixCase) queued() tally {
	seen := make(tally)
	conns := c.connect(10*(c.leaving+c.stay), seen)
	left := make(chan error)
	go func() { left <- c.leave() }()
	c.accept(c.stayers)
	c.accept(c.leavers)
	seen.note(<-left)
	conns = append(conns, c.connect(10, seen)...)
	askAll(conns, seen)
	return seen
}

// deferred: the handshakes stay half-open until the clients send something,
// which they do one by one, long after the members have begun to leave.
func (c *matrixCase) deferred() tally {
	for _, l := range append(append([]*reuseport.Listener(nil), c.leavers...), c.stayers...) {
		if err := onFD(l, deferAccept); err != nil {
			return tally{err.Error(): 1}
		}
	}
	c.accept(c.stayers)
	c.accept(c.leavers)
	seen := make(tally)
	conns := c.connect(8*(c.leaving+c.stay), seen)
	left := make(chan error)
	go func() { left <- c.leave() }()
	select {
	case err := <-left: // a way that doesn't wait
		seen.note(err)
		askAll(conns, seen)
	case <-time.After(30 * time.Millisecond): // let it begin; nothing depends on it
		askAll(conns, seen)
		seen.note(<-left)
	}
	askAll(c.connect(8, seen), seen)
	return seen
}

// flow: clients come all the time; the leaving members have connections in their
// queues and handshakes under way.
func (c *matrixCase) flow() tally { return c.traffic(new(net.Dialer), true) }

// race is flow on the loopback interface, with the leaving members accepting.
func (c *matrixCase) race() tally { return c.traffic(new(net.Dialer), false) }

// fastOpen is flow with data in the SYN.
func (c *matrixCase) fastOpen() tally {
	return c.traffic(&net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var serr error
		err := rc.Control(func(fd uintptr) {
			serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		})
		return errors.Join(err, serr)
	}}, true)
}

func (c *matrixCase) traffic(d *net.Dialer, fill bool) tally {
	c.accept(c.stayers)
	if !fill {
		c.accept(c.leavers)
	}
	seen := make(tally)
	var mu sync.Mutex
	var stop atomic.Bool
	var clients sync.WaitGroup
	for i := range 12 {
		clients.Go(func() { // ends with stop
			// Not in step with each other, or all of them have a handshake
			// under way at one moment, and none has at another.
			select {
			case <-time.After(time.Duration(i) * 4 * time.Millisecond):
			case <-c.ctx.Done():
			}
			c.client.Do(func() {
				for !stop.Load() {
					nc, err := d.Dial("tcp", c.address[i%len(c.address)])
					if err == nil {
						err = ask(nc)
						_ = nc.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
						_ = nc.Close()
					}
					mu.Lock()
					seen.note(err)
					mu.Unlock()
				}
			})
		})
	}
	err := c.until(func() bool {
		if !fill {
			return c.served.Load() > 50
		}
		for _, l := range c.leavers {
			if n, _, err := reuseport.QueueLen(l); err != nil || n > 0 {
				return true
			}
		}
		return false
	})
	left := make(chan error)
	go func() { left <- c.leave() }()
	if fill {
		c.accept(c.leavers)
	}
	err = errors.Join(err, <-left)
	stop.Store(true)
	clients.Wait()
	seen.note(err)
	return seen
}

func (c *matrixCase) until(ok func() bool) error {
	for !ok() {
		select {
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-time.After(time.Millisecond): // a poll
		}
	}
	return nil
}
