package reuseport_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// The kernel takes a listener out of its group before it takes it off the list in
// which a SYN looks for it, so a leaving one must not be found there: it is bound
// to no interface by then. A listener that may be shared is
// spared that, and the report says what it costs.
func TestDrainHides(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		for _, tt := range []struct {
			name   string
			before func(*reuseport.Group, *reuseport.Listener)
			hidden bool
			reason string
		}{
			{"exclusive", func(*reuseport.Group, *reuseport.Listener) {}, true, "has a duplicate"}, // the test has
			{"read only", func(_ *reuseport.Group, l *reuseport.Listener) { _, _, _ = reuseport.QueueLen(l) }, true, "has a duplicate"},
			{"shared", func(_ *reuseport.Group, l *reuseport.Listener) { _, _ = l.SyscallConn() }, false, "stays in the group"},
		} {
			t.Run(f.name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				ctx := testContext(t)
				var dups []int
				t.Cleanup(func() {
					for _, fd := range dups {
						_ = unix.Close(fd) // was only looked at
					}
				})
				g, err := reuseport.ListenGroup(ctx, f.network, f.listen, &reuseport.Config{
					Members: 2,
					Control: func(_, _ string, c syscall.RawConn) error {
						return c.Control(func(fd uintptr) {
							if dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
								dups = append(dups, dup)
							}
						})
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = g.Close() })
				l := g.Members()[0]
				// Drain need not wait for the duplicate to go.
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				go func() { // ends with l
					serveEcho(l)
					cancel()
				}()
				tt.before(g, l)
				r, err := l.Drain(ctx)
				if err != nil || r.LossPossible != tt.hidden || !strings.Contains(r.Reason, tt.reason) {
					t.Errorf("Drain = %+v, %v, want LossPossible %t, for a reason like %q", r, err, tt.hidden, tt.reason)
				}
				for i, want := range []bool{tt.hidden, false} { // the other one stays
					index, err := unix.GetsockoptInt(dups[i], unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
					if err != nil || index != 0 != want {
						t.Errorf("member %d is bound to interface %d, %v, want one: %t", i, index, err, want)
					}
				}
			})
		}
	}
}

// The last member of this process takes the program off before it closes, hidden,
// so that a SYN that comes to it then gets no answer.
func TestLastMemberHides(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			dup := -1
			g, err := reuseport.ListenGroup(ctx, f.network, f.listen, &reuseport.Config{
				Members: 1,
				Control: func(_, _ string, c syscall.RawConn) error {
					return c.Control(func(fd uintptr) { dup, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(dup)
			t.Cleanup(func() { _ = g.Close() })
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() { // ends with the member
				serveEcho(g.Members()[0])
				cancel() // the drain need not wait for the duplicate to go
			}()
			stay := group(t, f.network, g.Addr().String(), 1).Members()[0]
			if r, err := g.Drain(ctx); err != nil || r.Strategy != reuseport.StrategySteer || !strings.Contains(r.Reason, "has a duplicate") {
				t.Fatalf("Drain = %+v, %v", r, err)
			}
			index, err := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
			if err != nil || index == 0 {
				t.Errorf("it is bound to interface %d, %v, want one that does not exist", index, err)
			}
			err = onFD(stay, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
			})
			if !errors.Is(err, unix.ENOENT) {
				t.Errorf("the group has a program: %v", err)
			}
		})
	}
}

// A listener whose descriptor was asked for, and is closed nevertheless, could have
// lost something.
func TestDrainOfSharedMember(t *testing.T) {
	t.Parallel()
	g := group(t, "tcp4", "127.66.34.8:0", 1)
	for _, shared := range []bool{false, true} {
		ctx := testContext(t)
		drain := func() (reuseport.Report, error) {
			l, err := g.Add(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if shared {
				_, _ = l.SyscallConn()
			}
			go serveEcho(l)
			return l.Drain(ctx)
		}
		r, err := drain()
		for strings.Contains(r.Reason, "has a duplicate") && ctx.Err() == nil {
			// A process that another test forks has a copy until it has called exec.
			r, err = drain()
		}
		if err != nil || r.LossPossible != shared || r.Strategy != reuseport.StrategySteer {
			t.Errorf("Drain, shared %t: %+v, %v, want LossPossible %t", shared, r, err, shared)
		}
	}
}

func listenOn(t *testing.T, address string) *reuseport.Listener {
	t.Helper()
	l, err := reuseport.Listen(testContext(t), "tcp4", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Where the kernel migrates, the last member of this process does not wait for
// handshakes that last: they move to a member of another process.
func TestLastMemberMigrates(t *testing.T) {
	testenv.Need(t, "netns")
	needMigration(t)
	t.Parallel()
	ctx := testContext(t)
	ns := netlab.NewNamespace(t)
	ns.Sysctl(t, "net.ipv4.tcp_migrate_req", "1")
	ns.DoAs(65534, func() {
		leaving := listenOn(t, "127.0.0.1:0")
		stay := listenOn(t, leaving.Addr().String())
		for _, l := range []*reuseport.Listener{leaving, stay} {
			if err := onFD(l, deferAccept); err != nil {
				t.Error(err)
			}
			go serveEcho(l)
		}
		conns := dial(t, "tcp4", leaving.Addr().String(), 20) // and say nothing
		r, err := leaving.Drain(ctx)
		if err != nil || r.LossPossible || r.Strategy != reuseport.StrategySteerMigrate || r.HalfOpen == 0 || r.Members != 1 {
			t.Errorf("Drain = %+v, %v", r, err)
		}
		seen := make(tally)
		askAll(conns, seen)
		if seen.lost() > 0 {
			t.Errorf("lost %v, want none", seen)
		}
	})
}
