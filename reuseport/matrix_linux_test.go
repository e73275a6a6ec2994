package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
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
				select {
				case <-time.After(time.Millisecond): // a poll
				case <-ctx.Done():
					return fmt.Errorf("%d are queued: %w", n, ctx.Err())
				}
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
	testenv.Long(t, "TestDrainMatrix")
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
