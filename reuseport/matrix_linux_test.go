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
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// Members leave a group in every way, while connections to it are in every state
// that a connection can be in before it is accepted. What counts is what the
// clients see, which never try again.

// stage is what becomes of clients while members leave.
type stage struct {
	name    string
	link    bool              // clients are 50 ms away
	sysctl  map[string]string // of the servers' namespace
	network func(c *matrixCase) tally
}

var stages = []stage{
	{name: "queued", network: (*matrixCase).queued},
	{name: "half-open by TCP_DEFER_ACCEPT", network: (*matrixCase).deferred},
	{name: "half-open by round trip", link: true, network: (*matrixCase).flow},
	{name: "SYN racing the close", network: (*matrixCase).race},
	{name: "TCP Fast Open", link: true, network: (*matrixCase).fastOpen, sysctl: map[string]string{
		// Client and server, without cookies, on all listeners (ip-sysctl).
		"net.ipv4.tcp_fastopen": fmt.Sprint(0x1 | 0x2 | 0x4 | 0x200 | 0x400),
	}},
	{name: "SYN cookies", link: true, network: (*matrixCase).flow, sysctl: map[string]string{
		"net.ipv4.tcp_syncookies": "2", // always
	}},
}

var matrixFamilies = []struct {
	name, network, listen string
	v4, v6                bool
}{
	{"IPv4", "tcp4", "0.0.0.0:0", true, false},
	{"IPv6", "tcp6", "[::]:0", false, true},
	{"dual-stack", "tcp", "[::]:0", true, true},
}

// ways to leave.
var ways = map[string]func(ctx context.Context, g *reuseport.Group, leaving []*reuseport.Listener) error{
	"Drain": func(ctx context.Context, g *reuseport.Group, leaving []*reuseport.Listener) error {
		r, err := g.Remove(ctx, leaving...)
		if err == nil && (r.LossPossible || r.Left != 0 || r.Members != len(leaving) || r.Last ||
			r.Strategy != reuseport.StrategySteer && r.Strategy != reuseport.StrategySteerMigrate) {
			err = fmt.Errorf("report %+v", r)
		}
		return err
	},
	"Close": func(_ context.Context, _ *reuseport.Group, leaving []*reuseport.Listener) error {
		return closeAll(leaving)
	},
	"shutdown": func(_ context.Context, _ *reuseport.Group, leaving []*reuseport.Listener) error {
		var errs []error
		for _, l := range leaving {
			errs = append(errs, onFD(l, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) }))
		}
		return errors.Join(append(errs, closeAll(leaving))...)
	},
	"listen 0": func(_ context.Context, _ *reuseport.Group, leaving []*reuseport.Listener) error {
		var errs []error
		for _, l := range leaving {
			errs = append(errs, onFD(l, func(fd int) error { return unix.Listen(fd, 0) }))
		}
		return errors.Join(append(errs, closeAll(leaving))...)
	},
	"steer, queue empty": func(ctx context.Context, g *reuseport.Group, leaving []*reuseport.Listener) error {
		var members []reuseport.Member
		for _, l := range leaving {
			members = append(members, l)
		}
		if err := g.Steer(ctx, reuseport.Away(members...)); err != nil {
			return err
		}
		for _, l := range leaving {
			for {
				n, _, err := reuseport.QueueLen(l)
				if err != nil {
					return err
				}
				if n == 0 {
					break
				}
				time.Sleep(time.Millisecond) // a poll
			}
		}
		return closeAll(leaving)
	},
}

func closeAll(ls []*reuseport.Listener) error {
	var errs []error
	for _, l := range ls {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func onFD(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if l, ok := c.(*reuseport.Listener); ok {
		defer l.Unshare() // f keeps no duplicate
	}
	var ferr error
	return errors.Join(rc.Control(func(fd uintptr) { ferr = f(int(fd)) }), ferr)
}

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

// lab returns the place of a case.
func lab(t testing.TB, s stage, v4, v6 bool) place {
	var p place
	if s.link {
		l := netlab.NewLink(t, 25*time.Millisecond)
		p.server, p.client = l.Server, l.Client
		p.dial = []string{netlab.ServerAddrs[0].String(), netlab.ServerAddrs[1].String()}
	} else {
		p.server = netlab.NewNamespace(t)
		p.client = p.server
		p.dial = []string{"127.0.0.1", "::1"}
	}
	switch {
	case !v6:
		p.dial = p.dial[:1]
	case !v4:
		p.dial = p.dial[1:]
	}
	for _, n := range []*netlab.Namespace{p.server, p.client} {
		for name, value := range s.sysctl {
			n.Sysctl(t, name, value)
		}
	}
	return p
}

func TestDrainMatrix(t *testing.T) {
	testenv.Need(t, "netns")
	families, uids, numbers := matrixFamilies, []int{65534, 0}, []int{1, 2, 4}
	if testing.Short() { // an emulated machine has no time for all
		families, uids, numbers = families[:1], uids[:1], numbers[1:2]
	}
	for _, s := range stages {
		for _, f := range families {
			for _, uid := range uids {
				for _, migrate := range []string{"0", "1"} {
					t.Run(fmt.Sprintf("%s/%s/uid %d/migrate %s", s.name, f.name, uid, migrate), func(t *testing.T) {
						t.Parallel()
						if migrate == "1" {
							needMigration(t)
						}
						p := lab(t, s, f.v4, f.v6)
						p.uid = uid
						if _, err := os.Stat(migrateReq); migrate == "1" || err == nil {
							p.server.Sysctl(t, "net.ipv4.tcp_migrate_req", migrate)
						}
						var cases sync.WaitGroup
						for _, leaving := range numbers {
							for i, stay := range numbers {
								c := &matrixCase{
									place: p, network: f.network, listen: f.listen,
									way: "Drain", leaving: leaving, stay: stay, elsewhere: (leaving+i)%2 == 0,
								}
								cases.Go(func() {
									seen, err := c.run(s.network)
									if err != nil || seen.lost() > 0 {
										t.Errorf("%d leave, %d stay, of another group %t: lost %v, %v; want none", leaving, stay, c.elsewhere, seen, err)
									}
								})
							}
						}
						cases.Wait()
					})
				}
			}
		}
	}
}

// migrateReq is there since kernel 5.14.
const migrateReq = "/proc/sys/net/ipv4/tcp_migrate_req"

func needMigration(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(migrateReq); err != nil {
		testmain.Skipped()
		t.Skipf("needs a kernel that moves what a closing listener holds, 5.14 or newer: %v", err)
	}
}

// Each naive way loses connections in the same cases: what Drain does is needed.
// (With tcp_migrate_req=1 the kernel moves what a Close would lose, but for
// races.) How many leave and stay changes with each try.
func TestNaiveWaysLose(t *testing.T) {
	testenv.Need(t, "netns")
	if testing.Short() {
		t.Skip("short: it takes hundreds of tries to lose something")
	}
	numbers := []int{1, 2, 4}
	for _, s := range stages {
		for way := range ways {
			if way == "Drain" || way == "steer, queue empty" && (s.name == "queued" || s.name == "TCP Fast Open" || s.name == "SYN cookies" || s.name == "SYN racing the close") {
				continue // these lose nothing that way, or hardly ever
			}
			for _, f := range matrixFamilies {
				for _, uid := range []int{65534, 0} {
					t.Run(fmt.Sprintf("%s/%s/%s/uid %d", s.name, way, f.name, uid), func(t *testing.T) {
						t.Parallel()
						p := lab(t, s, f.v4, f.v6)
						p.uid = uid
						// On the loopback interface a race takes many tries.
						for try := range 225 {
							c := &matrixCase{
								place: p, network: f.network, listen: f.listen, way: way,
								leaving: numbers[try%3], stay: numbers[try/3%3],
							}
							seen, err := c.run(s.network)
							if err != nil {
								t.Fatal(err)
							}
							if seen.lost() > 0 {
								return
							}
						}
						t.Error("lost nothing, so the test of Drain shows nothing")
					})
				}
			}
		}
	}
}
