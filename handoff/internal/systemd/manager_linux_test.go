package systemd_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fakesystemd"
)

// process is this process as a service.
type process struct {
	*systemd.Manager
	t       *testing.T
	table   *sockets.Table
	updates chan error
}

// newProcess makes a Manager under sd, which has a store of so many descriptors.
func newProcess(t *testing.T, sd *fakesystemd.Systemd, size int, cfg systemd.Config) *process {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", sd.Path)
	t.Setenv("FDSTORE", fmt.Sprint(size))
	sd.StartMain(size, os.Getpid)
	p := &process{t: t, table: sockets.NewTable(), updates: make(chan error, 16)}
	cfg.Version, cfg.Table, cfg.Logger = "v1", p.table, hclog.NewNullLogger()
	cfg.Updated = func(err error) { p.updates <- err }
	var err error
	if p.Manager, err = systemd.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.table.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// listen binds a socket and puts it into the table.
func (p *process) listen(k sockets.Key) *sockets.Socket {
	p.t.Helper()
	lc := &net.ListenConfig{}
	h, err := sockets.Bind(p.t.Context(), k, lc, func(err error) bool { return p.MakeRoom(p.t.Context(), k, err) })
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := sockets.New(k, h, lc, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.table.Add(s, func() error { p.Changed(); return nil }); err != nil {
		p.t.Fatal(err)
	}
	p.Changed()
	return s
}

func tcp(address string) sockets.Key {
	return sockets.Key{Kind: wire.KindListener, Network: "tcp", Address: address}
}

func stores(n int) func([]string) bool { return func(names []string) bool { return len(names) == n } }

// TestReady stores the sockets before it says READY=1.
func TestReady(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 2, systemd.Config{})
	s := p.listen(tcp("127.0.0.1:0"))
	p.listen(sockets.Key{Kind: wire.KindPacket, Network: "udp", Address: "127.0.0.1:0"})
	p.Owner(1)
	n := sd.Await(0, "\nREADY=1\n", "\nSTATUS=generation 1, version v1\n")
	if names, _ := sd.Stored(); len(names) != 2 || !slices.Contains(names, s.Stored()) {
		t.Errorf("in the store at message %d: %q, want two sockets", n, names)
	}
	if err := <-p.updates; err != nil {
		t.Error(err)
	}
	p.Stopping("a test\nends", time.Second)
	n = sd.Await(n, "\nSTOPPING=1\n", "\nSTATUS=stopping: a test ends\n", "\nEXTEND_TIMEOUT_USEC=1000000\n")
	p.Extend(2 * time.Second)
	sd.Await(n, "\nEXTEND_TIMEOUT_USEC=2000000\n")
	if err := s.Listener.Share().Close(); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if names, _ := sd.Stored(); len(names) != 2 {
		t.Errorf("in the store after a stop: %q, want two sockets", names)
	}
}

// TestNoRoom stores all sockets or none.
func TestNoRoom(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 1, systemd.Config{})
	p.listen(tcp("127.0.0.1:0"))
	p.Owner(1)
	sd.Await(0, "\nREADY=1\n")
	if err := <-p.updates; err != nil {
		t.Error(err)
	}
	p.listen(tcp("127.0.0.1:0"))
	if err := <-p.updates; !errors.Is(err, failure.NotStored) || !strings.Contains(err.Error(), "FileDescriptorStoreMax=1 is too small") {
		t.Errorf("Updated(%v), want NotStored", err)
	}
	p.Close()
}

// TestFrozen changes nothing in the store while an upgrade is under way.
func TestFrozen(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 8, systemd.Config{})
	p.Owner(1)
	p.listen(tcp("127.0.0.1:0"))
	p.UpgradeStarted(t.Context(), 1, time.Second)
	sd.AwaitStored("one", stores(1))
	n := sd.Await(0, "\nRELOADING=1\nMONOTONIC_USEC=", "\nSTATUS=generation 1: upgrade under way\n", "\nEXTEND_TIMEOUT_USEC=1000000\n")
	p.listen(tcp("127.0.0.1:0"))
	p.UpgradeFailed(1, "no\nreason")
	began := n
	n = sd.Await(n, "\nREADY=1\n", "\nSTATUS=generation 1, version v1; upgrade failed: no reason\n")
	if slices.ContainsFunc(sd.Messages()[began:n], func(m fakesystemd.Message) bool { return strings.Contains(m.Text, "FDSTORE") }) {
		t.Error("the store has changed while an upgrade was under way")
	}
	sd.AwaitStored("both", stores(2))
	p.TakeoverStarted()
	p.listen(tcp("127.0.0.1:0"))
	then := make(chan struct{})
	p.Replaced(systemd.Successor{PID: 77, Generation: 2, OtherUnit: true})
	p.Then(func() { close(then) })
	sd.Await(n, "\nSTOPPING=1\n", "\nSTATUS=replaced by pid 77\n")
	sd.AwaitStored("none", stores(0))
	<-then
	p.Close()
}

// TestReplaced lets Close wait until systemd has read of the successor.
func TestReplaced(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 0, systemd.Config{})
	p.Owner(1)
	p.UpgradeStarted(t.Context(), 1, 1<<63-1)
	sd.HoldBarriers()
	then, closed := make(chan struct{}), make(chan struct{})
	p.Replaced(systemd.Successor{PID: os.Getppid(), Generation: 2, Version: "v2"})
	p.Then(func() { close(then) })
	go func() {
		p.Close()
		close(closed)
	}()
	<-then
	n := sd.Await(0, fmt.Sprintf("\nMAINPID=%d\n", os.Getppid()), "\nREADY=1\n", "\nSTATUS=generation 2, version v2\n")
	sd.Await(n, "\nBARRIER=1\n")
	select {
	case <-closed:
		t.Error("Close() has not waited for systemd")
	case <-time.After(20 * time.Millisecond):
	}
	sd.ReleaseBarriers()
	<-closed
}

// TestSpawned sends nothing before systemd takes the process for the main one.
func TestSpawned(t *testing.T) {
	for name, introduce := range map[string]func(*process){
		"by the predecessor": func(p *process) { p.Introduced(); p.Introduce(2) },
		"by itself":          func(p *process) { p.Introduce(2); p.Introduced() },
	} {
		t.Run(name, func(t *testing.T) {
			sd := fakesystemd.Start(t)
			t.Setenv("WATCHDOG_USEC", "2000")
			p := newProcess(t, sd, 8, systemd.Config{Spawned: true})
			left := wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:1", Keeper: wire.KeeperStore}
			p.Received(&left)
			p.listen(tcp("127.0.0.1:0"))
			p.Owner(2)
			<-time.After(10 * time.Millisecond) // for nothing to come
			if all := sd.Messages(); len(all) > 0 {
				t.Fatalf("it has sent %q before it was introduced", all)
			}
			introduce(p)
			sd.Await(0, "\nFDSTOREREMOVE=1\n", "\nFDNAME="+systemd.NameOf(&left)+"\n")
			sd.AwaitStored("its socket", stores(1))
			sd.Await(0, "\nWATCHDOG=1\n")
			p.Close()
			all := slices.DeleteFunc(sd.Messages(), func(m fakesystemd.Message) bool { return m.Text == "WATCHDOG=1" })
			for i, m := range all {
				main := strings.HasPrefix(m.Text, fmt.Sprintf("MAINPID=%d\nREADY=1\n", os.Getpid()))
				if main != (name == "by itself" && i == 0) {
					t.Errorf("message %d is %s", i, m)
				}
			}
		})
	}
}

// TestOutsider does not count on what another unit's systemd has stored.
func TestOutsider(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 8, systemd.Config{})
	e := wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: "127.0.0.1:1", Keeper: wire.KeeperStore}
	if p.Received(&e); e.Keeper != wire.KeeperNone {
		t.Errorf("Received() leaves %v", e.Keeper)
	}
	p.Close()
}

// TestMakeRoom binds the address of a socket that was closed, and is still in the
// store.
func TestMakeRoom(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 8, systemd.Config{})
	s := p.listen(tcp("127.0.0.1:0"))
	p.Owner(1)
	sd.AwaitStored("one", stores(1))
	address := s.Listener.Addr().String()
	if err := s.Listener.Share().Close(); err != nil {
		t.Fatal(err)
	}
	p.listen(tcp(address))
	if p.MakeRoom(t.Context(), tcp(address), syscall.EACCES) {
		t.Error("MakeRoom() says that it helps against EACCES")
	}
	p.Close()
}

// TestSilent has no systemd.
func TestSilent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m, err := systemd.New(systemd.Config{Table: sockets.NewTable(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	m.Owner(1)
	m.Changed()
	m.UpgradeStarted(t.Context(), 1, time.Second)
	m.UpgradeFailed(1, "x")
	m.UpgradeStarted(t.Context(), 1, time.Second)
	called := false
	m.Replaced(systemd.Successor{PID: 1})
	m.Then(func() { called = true })
	m.Extend(time.Second)
	if a, ok := m.Match(tcp("127.0.0.1:1")); ok {
		t.Errorf("Match() = %+v without systemd", a)
	}
	if m.MakeRoom(t.Context(), tcp("127.0.0.1:1"), syscall.EADDRINUSE) || !called {
		t.Errorf("MakeRoom() has made room, or then was not called: %t", called)
	}
	m.Close()
}

// TestReplacedEarly replaces a process that systemd does not take for the main one
// yet: it waits, so that systemd reads of the two processes in their order.
func TestReplacedEarly(t *testing.T) {
	sd := fakesystemd.Start(t)
	p := newProcess(t, sd, 0, systemd.Config{Spawned: true})
	p.Owner(2)
	p.Replaced(systemd.Successor{PID: os.Getppid(), Generation: 3})
	p.Then(func() {})
	closed := make(chan struct{})
	go func() {
		p.Close()
		close(closed)
	}()
	select {
	case <-closed:
		t.Error("Close() has not waited")
	case <-time.After(20 * time.Millisecond):
	}
	p.Introduce(2)
	<-closed
	n := sd.Await(0, fmt.Sprintf("\nMAINPID=%d\n", os.Getpid()), "\nSTATUS=generation 2")
	sd.Await(n, fmt.Sprintf("\nMAINPID=%d\n", os.Getppid()), "\nSTATUS=generation 3")
}
