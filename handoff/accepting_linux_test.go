package handoff_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestReadyAccepting is ready when Accept is called on each listener that is open, and not
// before: until then the predecessor serves.
func TestReadyAccepting(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testenv.ShortDir(t), "c", "s")
	old := newUpgrader(t, handoff.Config{ControlSocket: socket, Probation: -1})
	listen := func(up *handoff.Upgrader) *handoff.Listener {
		t.Helper()
		ln, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	lns := []*handoff.Listener{listen(old), listen(old)}
	if err := old.Ready(); err != nil {
		t.Fatal(err)
	}
	next := newUpgrader(t, handoff.Config{ControlSocket: socket})
	accepted := make(chan error, 2)
	accept := func(ln *handoff.Listener) {
		nc, err := ln.Accept()
		if err == nil {
			err = nc.Close()
		}
		accepted <- err
	}
	first, second := listen(next), listen(next) // the predecessor's
	closed := listen(next)
	go accept(first) // ends with a connection
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := next.ReadyAccepting(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not called Accept on tcp 127.0.0.1:") {
		t.Errorf("ReadyAccepting() without Accept on two listeners: %v, want %v and an address", err, context.Canceled)
	}
	if s := next.Status(); s.State != handoff.StateStarting {
		t.Errorf("Status().State = %s, want %s", s.State, handoff.StateStarting)
	}
	ready := make(chan error, 1)
	go func() { ready <- next.ReadyAccepting(t.Context()) }()
	go accept(second) // likewise
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	<-old.Done()
	for _, ln := range lns {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := <-accepted; err != nil {
			t.Error(err)
		}
		_ = nc.Close()
	}
}

// TestReadyAcceptingEnds waits in a process that ends.
func TestReadyAcceptingEnds(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	if _, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ready := make(chan error, 1)
	go func() { ready <- up.ReadyAccepting(t.Context()) }()
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ready; !errors.Is(err, handoff.ErrClosed) {
		t.Errorf("ReadyAccepting(): %v, want %v", err, handoff.ErrClosed)
	}
}
