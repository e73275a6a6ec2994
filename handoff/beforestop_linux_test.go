package handoff_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// A preparation is a function of BeforeStop that waits.
type preparation struct {
	begun   chan struct{} // closed when it is called
	release chan struct{}
	ended   chan error // of its context, when it returns
}

func prepareStop(up *handoff.Upgrader) *preparation {
	p := &preparation{begun: make(chan struct{}), release: make(chan struct{}), ended: make(chan error, 1)}
	up.BeforeStop(func(ctx context.Context) {
		close(p.begun)
		select {
		case <-p.release:
		case <-ctx.Done():
		}
		p.ended <- ctx.Err()
	})
	return p
}

// TestBeforeStop stops a process in each way: until the program is prepared it accepts,
// and begins no upgrade.
func TestBeforeStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		stop func(ctx context.Context, up *handoff.Upgrader, socket string) error
	}{
		{"Shutdown", func(ctx context.Context, up *handoff.Upgrader, _ string) error { return up.Shutdown(ctx) }},
		{"operator", func(ctx context.Context, up *handoff.Upgrader, socket string) error {
			c, err := control.New(&control.Config{Socket: socket})
			if err != nil {
				return err
			}
			if _, err := c.Drain(ctx, &control.DrainConfig{Wait: control.WaitNone}); err != nil {
				return err
			}
			<-up.Done()
			return up.Shutdown(ctx)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(testenv.ShortDir(t), "c", "s")
			up := newUpgrader(t, handoff.Config{ControlSocket: socket})
			p := prepareStop(up)
			ln, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := up.Ready(); err != nil {
				t.Fatal(err)
			}
			stopped := make(chan error, 1)
			go func() { stopped <- c.stop(context.Background(), up, socket) }()
			<-p.begun
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.Close()
			accepted, err := ln.Accept()
			if err != nil {
				t.Fatalf("Accept() before the program is prepared: %v", err)
			}
			_ = accepted.Close()
			if err := up.Upgrade(t.Context()); !errors.Is(err, handoff.ErrClosed) {
				t.Errorf("Upgrade(): %v, want %v", err, handoff.ErrClosed)
			}
			select {
			case <-up.Done():
				t.Error("Done is closed before the program is prepared")
			default:
			}
			close(p.release)
			if err := <-p.ended; err != nil {
				t.Errorf("the context of the function: %v", err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBeforeStopEnds ends the wait by the end of Shutdown's context.
func TestBeforeStopEnds(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	p := prepareStop(up)
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- up.Shutdown(ctx) }()
	<-p.begun
	cancel()
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the context of the function: %v, want %v", err, context.Canceled)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestBeforeStopNotServing stops a process before Ready, and closes one: neither waits.
func TestBeforeStopNotServing(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(up *handoff.Upgrader) error{
		"before Ready": func(up *handoff.Upgrader) error { return up.Shutdown(context.Background()) },
		"Close": func(up *handoff.Upgrader) error {
			if err := up.Ready(); err != nil {
				return err
			}
			return up.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpgrader(t, handoff.Config{})
			p := prepareStop(up)
			if err := stop(up); err != nil {
				t.Error(err)
			}
			select {
			case <-p.begun:
				t.Error("the function is called")
			default:
			}
		})
	}
}

// TestBeforeStopGivesUp stops a predecessor in probation: it takes its sockets back and
// accepts until the program is prepared.
func TestBeforeStopGivesUp(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testenv.ShortDir(t), "c", "s")
	paused := make(chan struct{})
	old := newUpgrader(t, handoff.Config{ControlSocket: socket, Probation: patience, OnEvent: func(e handoff.Event) {
		if e.Kind == handoff.EventPaused {
			close(paused)
		}
	}})
	p := prepareStop(old)
	ln, err := old.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Ready(); err != nil {
		t.Fatal(err)
	}
	next := newUpgrader(t, handoff.Config{ControlSocket: socket})
	if _, err := next.Listen(t.Context(), "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	ready := make(chan error, 1)
	go func() { ready <- next.Ready() }()
	<-paused
	stopped := make(chan error, 1)
	go func() { stopped <- old.Shutdown(context.Background()) }()
	<-p.begun
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatalf("Accept() after the upgrade is given up: %v", err)
	}
	_ = accepted.Close()
	select {
	case <-next.Done():
	case <-time.After(patience):
		t.Error("the successor does not end")
	}
	close(p.release)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	<-ready
}
