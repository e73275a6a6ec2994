package handoffhttp_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

var modes = []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain}

// eachMode runs a test in each mode.
func eachMode(t *testing.T, f func(t *testing.T, mode handoff.Mode)) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			f(t, mode)
		})
	}
}

// bounded returns a context for a whole test.
func bounded(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), 5*time.Minute, fmt.Errorf("the test's limit"))
	tb.Cleanup(cancel)
	return ctx
}

// startService starts a service of processes.
func startService(tb testing.TB, set rig.Settings) *rig.Service {
	tb.Helper()
	return startServiceIn(tb, here, set)
}

// TestDelay has the Upgrader receive SIGTERM: the server accepts on, and each response
// ends its connection, until the delay is over. A second signal ends it.
func TestDelay(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for _, c := range []struct {
			name  string
			delay time.Duration
			again bool // a second signal
		}{
			{"ends by itself", 200 * time.Millisecond, false},
			{"second signal", time.Hour, true},
		} {
			t.Run(c.name, func(t *testing.T) {
				ctx := bounded(t)
				s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, Delay: c.delay})
				kept, last := dialTo(t, s.Settings.Addr), dialTo(t, s.Settings.Addr)
				for _, c := range []*client{kept, last} {
					if res, err := ask(c); err != nil || res.close {
						t.Fatalf("before the stop: %+v, %v", res, err)
					}
				}
				pid := s.PID()
				if err := s.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if c.again {
					eventually(t, "the check fails", func() bool {
						check := dialTo(t, s.Settings.Addr)
						defer check.Close()
						check.send("GET /ready HTTP/1.1\r\nHost: h\r\n\r\n")
						res, err := http.ReadResponse(check.r, nil)
						if err != nil {
							t.Fatal(err)
						}
						return res.StatusCode == http.StatusServiceUnavailable && res.Close
					})
					for _, c := range []*client{kept, dialTo(t, s.Settings.Addr)} {
						if res, err := ask(c); err != nil || !res.close {
							t.Errorf("in the delay: %+v, %v, want a response that asks to close", res, err)
						}
					}
					if err := s.Signal(syscall.SIGTERM); err != nil {
						t.Fatal(err)
					}
				} else {
					_ = kept.Close()
				}
				eventually(t, "the service accepts no more", func() bool {
					nc, err := net.Dial("tcp", s.Settings.Addr)
					if err == nil {
						_ = nc.Close()
					}
					return err != nil
				})
				if res, err := ask(last); err != nil || !res.close {
					t.Errorf("in the linger: %+v, %v, want a response that asks to close", res, err)
				}
				end, err := s.Exit(ctx, pid)
				if err != nil {
					t.Fatal(err)
				}
				if l := end.Linger; l == nil || len(l.Cut) != 0 {
					t.Errorf("linger: %+v, want none cut", l)
				}
			})
		}
	})
}

// here is where processes are started if not in a namespace.
func here(f func()) { f() }

func startServiceIn(tb testing.TB, in func(func()), set rig.Settings) *rig.Service {
	tb.Helper()
	set.Dir = testenv.ShortDir(tb)
	var err error
	if set.Cert, set.Key, err = selfsigned.Write(set.Dir, "h"); err != nil {
		tb.Fatal(err)
	}
	if set.Probation == 0 {
		set.Probation = 20 * time.Millisecond
	}
	if set.Linger == 0 {
		set.Linger = 4 * time.Minute // nothing is cut because the machine is busy
	}
	cmd := testmain.Command(tb, "service")
	var s *rig.Service
	in(func() { s, err = rig.Start(bounded(tb), cmd, set) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("service:\n%s", s.Log())
			for _, m := range s.Messages() {
				tb.Logf("%+v linger %+v", m, m.Linger)
			}
		}
	})
	return s
}

// startClientIn starts a client process.
func startClientIn(tb testing.TB, in func(func()), load rig.Load) *rig.Client {
	tb.Helper()
	var c *rig.Client
	var err error
	in(func() {
		c, err = rig.StartClient(load, func(arg string) *exec.Cmd { return testmain.Command(tb, "client", arg) })
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// TestNoRequestLost upgrades a service under load. Beside it, the same load on
// http.Server.Shutdown must lose requests, or else it proves nothing.
func TestNoRequestLost(t *testing.T) {
	t.Parallel()
	upgrades := testenv.Times(2, 5)
	loads := []rig.Load{
		{Clients: 64, Body: 5},
		{Clients: 64, Body: 5, Close: true},
		{Clients: 64, Body: 3000, Think: 50 * time.Millisecond},
		{Clients: 1, Body: 0},
		{Clients: 1000, Body: 5, Think: 20 * time.Millisecond},
		{Clients: 16, Body: 5, Ahead: 1},
		{Clients: 16, Body: 700, Ahead: 30}, // always more than net/http's buffer holds
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for i, load := range loads {
			name := fmt.Sprintf("clients %d think %v", load.Clients, load.Think)
			if load.Close {
				name += " close"
			}
			if load.Ahead > 0 {
				name += fmt.Sprintf(" ahead %d", load.Ahead)
			}
			t.Run(name, func(t *testing.T) {
				if i > 0 && modes[i%len(modes)] != mode { // the first in each mode, the others in one
					testenv.Long(t, "TestNoRequestLost")
				}
				o := runLoad(t, rig.Settings{How: rig.Baton, Mode: mode}, load, upgrades)
				if o.Failed != 0 || len(o.Gens) < upgrades/2 {
					t.Errorf("%d failed of %d, by generation %v: %v", o.Failed, o.OK+o.Failed, o.Gens, o.Errors)
				}
				if !load.Close && o.Conns != uint64(load.Clients) {
					t.Errorf("%d connections for %d clients, want one each", o.Conns, load.Clients)
				}
				t.Logf("%d requests, %d failed, worst took %v", o.OK, o.Failed, o.Max)
			})
		}
		t.Run("control", func(t *testing.T) {
			if mode != handoff.Takeover {
				testenv.Long(t, "TestNoRequestLost")
			}
			o := runLoad(t, rig.Settings{How: rig.Shutdown, Mode: mode}, loads[0], upgrades)
			if o.Failed == 0 {
				t.Errorf("http.Server.Shutdown lost none of %d requests: the tests beside this one prove nothing", o.OK)
			}
			t.Logf("%d requests, %d failed: %v", o.OK, o.Failed, o.Errors)
		})
	})
}

// runLoad upgrades a service under load.
func runLoad(t *testing.T, set rig.Settings, load rig.Load, upgrades int) rig.Outcome {
	t.Helper()
	return runLoadIn(t, here, here, set, load, upgrades)
}

// runLoadIn is runLoad with the service and the client in namespaces.
func runLoadIn(t *testing.T, server, client func(func()), set rig.Settings, load rig.Load, upgrades int) rig.Outcome {
	t.Helper()
	ctx := bounded(t)
	s := startServiceIn(t, server, set)
	load.Addr = s.Settings.Addr
	c := startClientIn(t, client, load)
	for range upgrades {
		m, err := s.Upgrade(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Exit(ctx, m.PID); err != nil {
			t.Fatal(err)
		}
		if err := c.More(ctx, uint64(2*load.Clients)); err != nil {
			t.Fatal(err)
		}
	}
	o, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestBackToBack has each upgrade begin as soon as the one before is committed,
// while its predecessor may still pass connections on, to a successor that is
// about to be replaced itself.
func TestBackToBack(t *testing.T) {
	t.Parallel()
	upgrades := testenv.Times(2, 10)
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		ctx := bounded(t)
		s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, Probation: time.Millisecond})
		load := rig.Load{Addr: s.Settings.Addr, Clients: testenv.Times(50, 200), Body: 5, Think: 10 * time.Millisecond}
		c := startClientIn(t, here, load)
		var old []int
		for len(old) < upgrades {
			m, err := s.Upgrade(ctx)
			switch {
			case err == nil:
				old = append(old, m.PID)
			case m.Kind != "upgrade-failed" || ctx.Err() != nil: // or else it came too early
				t.Fatal(err)
			}
		}
		for _, pid := range old {
			end, err := s.Exit(ctx, pid)
			if err != nil {
				t.Fatal(err)
			}
			if l := end.Linger; l == nil || len(l.Cut) != 0 {
				t.Errorf("linger: %+v, want none cut", l)
			}
		}
		if err := c.More(ctx, uint64(load.Clients)); err != nil {
			t.Fatal(err)
		}
		o, err := c.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if o.Failed != 0 {
			t.Errorf("%d failed of %d, by generation %v: %v", o.Failed, o.OK+o.Failed, o.Gens, o.Errors)
		}
		t.Logf("%d requests, %d failed, %d connections", o.OK, o.Failed, o.Conns)
		if _, err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// stayIn is n.Do on threads that live until the end of the test: the kernel kills
// a helper process with the thread that started it.
func stayIn(tb testing.TB, n *netlab.Namespace) func(func()) {
	return func(f func()) {
		started, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() { // ends with the test
			defer close(ended)
			n.Do(func() {
				f()
				close(started)
				<-end
			})
		}()
		<-started
		tb.Cleanup(func() {
			close(end)
			<-ended
		})
	}
}

// TestDelayedLink is TestNoRequestLost with a round trip of 50 ms, in which neither
// side knows about a request on its way.
func TestDelayedLink(t *testing.T) {
	// Not beside others: netlab ends threads, and the kernel kills helpers with the
	// thread that happened to start them.
	testenv.Need(t, "root")
	testenv.Need(t, "netns")
	delayed := func(t *testing.T, mode handoff.Mode) {
		link := netlab.NewLink(t, 25*time.Millisecond)
		server, client := stayIn(t, link.Server), stayIn(t, link.Client)
		set := rig.Settings{How: rig.Baton, Mode: mode, Addr: net.JoinHostPort(netlab.ServerAddrs[0].String(), "8080")}
		loads := []rig.Load{
			{Clients: 64, Body: 5},
			{Clients: 16, Body: 700, Ahead: 30},
			{Clients: 64, Body: 5, Close: true},
			{Clients: 200, Body: 5, Think: 50 * time.Millisecond},
			{Clients: 32, Body: 5, Protocol: "tls"},
			{Clients: 32, Body: 5, Protocol: "h2"},
		}
		upgrades := testenv.Times(1, 3)
		for _, load := range loads[:testenv.Times(2, len(loads))] {
			set.Protocol = load.Protocol
			o := runLoadIn(t, server, client, set, load, upgrades)
			if o.Failed != 0 {
				t.Errorf("%+v: %d failed of %d: %v", load, o.Failed, o.OK+o.Failed, o.Errors)
			}
			t.Logf("%+v: %d requests, %d failed", load, o.OK, o.Failed)
		}
		set.How, set.Protocol = rig.Shutdown, ""
		o := runLoadIn(t, server, client, set, rig.Load{Clients: 64, Body: 5}, upgrades)
		if o.Failed == 0 {
			t.Errorf("http.Server.Shutdown lost none of %d requests: the test proves nothing", o.OK)
		}
		t.Logf("control: %d requests, %d failed: %v", o.OK, o.Failed, o.Errors)
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			if mode != handoff.Takeover {
				testenv.Long(t, "TestDelayedLink")
			}
			delayed(t, mode)
		})
	}
}
