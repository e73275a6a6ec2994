package control_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// serve makes an upgrader in this process.
func serve(tb testing.TB, cfg handoff.Config) (*handoff.Upgrader, *control.Client) {
	tb.Helper()
	cfg.Mode = handoff.Takeover
	if cfg.ControlSocket == "" {
		cfg.ControlSocket = filepath.Join(testenv.ShortDir(tb), "c", "s")
	}
	cfg.UpgradeSignals, cfg.StopSignals = []os.Signal{}, []os.Signal{}
	up, err := handoff.New(&cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = up.Close() })
	return up, client(tb, cfg.ControlSocket)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	up, c := serve(t, handoff.Config{Version: "1.2.3", Name: "api"})
	dir := testenv.ShortDir(t)
	tcp, err := up.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	_, err = up.ListenNamed(t.Context(), "admin", "unix", filepath.Join(dir, "u"))
	errs = append(errs, err)
	// More than one answer holds.
	const packets = 1100
	for i := range packets {
		_, err := up.ListenPacketNamed(t.Context(), fmt.Sprint("p", i), "unixgram", filepath.Join(dir, fmt.Sprint(i)))
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(within(t)); err != nil || st.State != handoff.StateStarting {
		t.Errorf("Status() before Ready = %+v, %v", st, err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	conn, err := tcp.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer up.Track(conn).Close()

	st, err := c.Status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.Name != "api" || st.PID != os.Getpid() || st.UID != os.Geteuid() || st.Version != "1.2.3" || st.Generation != 1 ||
		st.State != handoff.StateServing || st.Mode != handoff.Takeover || st.Open != 1 || st.Accepted != 1 ||
		st.Uptime <= 0 || st.Started.IsZero() || !strings.Contains(st.Build, runtime.Version()) || st.Executable == "" || st.Remaining >= 0 {
		t.Errorf("status: %+v", st)
	}
	if len(st.Sockets) != packets+2 {
		t.Fatalf("%d sockets, want %d", len(st.Sockets), packets+2)
	}
	if s := st.Sockets[0]; s.Kind != "listener" || s.Network != "tcp4" || s.Address != tcp.Addr().String() ||
		s.Queue != 2 || s.Backlog <= 0 || s.HalfOpen != 0 || s.Accepted != 1 {
		t.Errorf("tcp: %+v, want 2 queued, 1 accepted", s)
	}
	if s := st.Sockets[1]; s.Name != "admin" || s.Network != "unix" || s.Queue != 0 || s.Backlog <= 0 || s.HalfOpen != -1 {
		t.Errorf("unix: %+v, want an empty queue", s)
	}
	if s := st.Sockets[packets+1]; s.Name != fmt.Sprint("p", packets-1) || s.Kind != "packet" || s.Queue != -1 {
		t.Errorf("last: %+v", s)
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	// A process that another test forks has a copy until it has called exec.
	ctx := within(t)
	for c, err := net.Dial("unix", stale); err == nil && ctx.Err() == nil; c, err = net.Dial("unix", stale) {
		_ = c.Close()
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none", "s"): control.ErrNoServer,
		stale:                           control.ErrStale,
	} {
		if _, err := client(t, path).Status(ctx); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Status() = %v, want %v", err, want)
		}
	}
	if os.Geteuid() == 0 {
		c, err := control.New(&control.Config{Name: "none" + strconv.Itoa(os.Getpid())})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(ctx); !errors.Is(err, control.ErrNoServer) || !strings.Contains(err.Error(), "baton --socket PATH") {
			t.Errorf("Status() by name as root = %v, want ErrNoServer and --socket", err)
		}
	}
	if _, err := control.New(nil); err == nil {
		t.Error("New(nil): no error")
	}
	if c, err := control.New(&control.Config{Name: "x"}); err != nil || c.Socket() != control.Path("x") {
		t.Errorf("Socket() = %s, %v, want %s", c.Socket(), err, control.Path("x"))
	}
}

// fake is a server that answers as it likes.
func fake(tb testing.TB, answer func(conn *fdpass.Conn)) *control.Client {
	tb.Helper()
	path := filepath.Join(testenv.ShortDir(tb), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			uc, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			conn := fdpass.New(uc)
			if f, err := conn.Recv(); err == nil {
				_ = fdx.Close(f.FDs...)
				answer(conn)
			}
			_ = conn.Close()
		}
	}()
	tb.Cleanup(func() { _ = ln.Close(); <-done })
	return client(tb, path)
}

func send(conn *fdpass.Conn, m wire.Message, fds ...int) {
	_ = conn.Send(uint16(m.Type()), wire.Append(nil, m), fds)
}

// TestStrangeServers has servers that are too old, too new, or none.
func TestStrangeServers(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := fdx.Number(null)
	if err != nil {
		t.Fatal(err)
	}
	body := func(s string) []byte { return []byte(s) }
	for name, tt := range map[string]struct {
		answer func(conn *fdpass.Conn)
		want   error
	}{
		"no common version": {func(c *fdpass.Conn) { send(c, &wire.Refuse{Reason: failure.Version, Text: "2 to 3"}) }, handoff.ErrVersion},
		"too old":           {func(c *fdpass.Conn) { send(c, &wire.Refuse{Reason: failure.Unsupported}) }, handoff.ErrUnsupported},
		"not ours":          {func(c *fdpass.Conn) { send(c, &wire.Refuse{Reason: failure.PeerRefused}) }, handoff.ErrPeerRefused},
		"at its end":        {func(c *fdpass.Conn) { send(c, &wire.Refuse{Reason: failure.Closed}) }, handoff.ErrClosed},
		"answers in 99":     {func(c *fdpass.Conn) { send(c, &wire.Response{Final: true, Version: 99}) }, handoff.ErrVersion},
		"silent":            {func(*fdpass.Conn) {}, control.ErrNoAnswer},
		"breaks off": {func(c *fdpass.Conn) {
			send(c, &wire.Response{Version: 1, Body: body(`{"status":{"pid":1}}`)})
		}, control.ErrNoAnswer},
		"a successor's words": {func(c *fdpass.Conn) { send(c, &wire.Welcome{}) }, handoff.ErrProtocol},
		"no JSON":             {func(c *fdpass.Conn) { send(c, &wire.Response{Final: true, Version: 1, Body: body("{")}) }, handoff.ErrProtocol},
		"no status":           {func(c *fdpass.Conn) { send(c, &wire.Response{Final: true, Version: 1, Body: body("{}")}) }, handoff.ErrProtocol},
		"a status of strings": {func(c *fdpass.Conn) {
			send(c, &wire.Response{Final: true, Version: 1, Body: body(`{"status":{"pid":"x"}}`)})
		}, handoff.ErrProtocol},
		"no end": {func(c *fdpass.Conn) {
			for range 2000 {
				send(c, &wire.Response{Version: 1, Body: body(`{"status":{}}`)})
			}
		}, handoff.ErrProtocol},
		"descriptors":    {func(c *fdpass.Conn) { send(c, &wire.Response{Version: 1, Body: body("{}")}, fd, fd) }, control.ErrNoAnswer},
		"full disk":      {func(c *fdpass.Conn) { send(c, failed(failure.NoSpace)) }, syscall.ENOSPC},
		"unknown reason": {func(c *fdpass.Conn) { send(c, failed(70_000)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fake(t, tt.answer).Status(within(t))
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Status() = %v, want %v", err, tt.want)
			}
		})
	}
}

func failed(r failure.Reason) *wire.Response {
	return &wire.Response{
		Final: true, Version: 1,
		Body: fmt.Appendf(nil, `{"failure":{"reason":%d,"text":"so it is"}}`, r),
	}
}

// TestExitStatus has a status for what an upgrade has failed of, and how.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	unknown := errors.New("new")
	for _, c := range []struct {
		err    error
		status int
		name   string
	}{
		{nil, 0, "none"},
		{unknown, 1, "other"},
		{control.ErrStale, 4, "stale"},
		{handoff.ErrAborted, 8, "aborted"},
		{&handoff.UpgradeError{Err: unknown}, 8, "other"},
		{&handoff.UpgradeError{Err: unknown, Outcome: handoff.OutcomeRolledBack}, 9, "other"},
		{&handoff.UpgradeError{Err: handoff.ErrAborted, Outcome: handoff.OutcomeFailed}, 8, "aborted"},
		{&handoff.UpgradeError{Err: handoff.ErrAborted, Outcome: handoff.OutcomeRolledBack}, 9, "aborted"},
		{&handoff.UpgradeError{Err: handoff.ErrTimeout, Outcome: handoff.OutcomeRolledBack}, 10, "timeout"},
		{&handoff.UpgradeError{Err: syscall.ENOSPC}, 7, "no-space"},
	} {
		if status, name := control.ExitStatus(c.err); status != c.status || name != c.name {
			t.Errorf("ExitStatus(%v) = %d, %s, want %d, %s", c.err, status, name, c.status, c.name)
		}
	}
}

// TestCallEnds ends the context of a call that gets no answer.
func TestCallEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := fake(t, func(conn *fdpass.Conn) {
		cancel()
		_, _ = conn.Recv() // until it hangs up
	})
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Status() = %v, want context.Canceled", err)
	}
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Status() with an ended context = %v, want context.Canceled", err)
	}
}

// TestOtherUsers asks as a user that Allow refuses, and as one that it admits.
func TestOtherUsers(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "root")
	const other = 65534
	up, c := serve(t, handoff.Config{Allow: func(p handoff.Peer) bool { return p.UID == other }})
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	if got := askAs(t, other, c.Socket(), "status"); !strings.Contains(got, "refused: true") || !strings.Contains(got, "does not admit uid 65534") {
		t.Errorf("a user who can't reach the socket: %s", got)
	}
	// Let every user reach the socket.
	for path, mode := range map[string]os.FileMode{
		filepath.Dir(filepath.Dir(c.Socket())): 0o755, filepath.Dir(c.Socket()): 0o755, c.Socket(): 0o666,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if got := askAs(t, other, c.Socket(), "status"); !strings.Contains(got, "refused: false <nil>") {
		t.Errorf("a user whom Allow lets in: %s", got)
	}
	for _, what := range []string{"exec", "env"} {
		if got := askAs(t, other, c.Socket(), what); !strings.Contains(got, "refused: true") || !strings.Contains(got, "may not choose the program") {
			t.Errorf("a user whom Allow lets in chooses %s: %s", what, got)
		}
	}
	if got := askAs(t, other+1, c.Socket(), "status"); !strings.Contains(got, "refused: true") || !strings.Contains(got, "uid 65535") {
		t.Errorf("a user whom Allow does not let in: %s", got)
	}
}

// TestManyRequests has as many clients follow events as a server lets: it says so to one
// more, and still answers other requests.
func TestManyRequests(t *testing.T) {
	t.Parallel()
	up, c := serve(t, handoff.Config{})
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	const requests = 32 // the server's limit
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	started, ends := make(chan struct{}, requests), make(chan error, requests)
	for range requests {
		go func() {
			first := true
			ends <- c.Follow(ctx, func(handoff.Event) error {
				if first {
					first = false
					started <- struct{}{}
				}
				return nil
			})
		}()
	}
	for range requests {
		<-started
	}
	if err := c.Events(within(t), func(handoff.Event) error { return nil }); err == nil || !strings.Contains(err.Error(), "too many requests") {
		t.Errorf("Events() = %v, want a refusal", err)
	}
	if _, err := c.Status(within(t)); err != nil {
		t.Errorf("Status() = %v", err)
	}
	if _, err := c.Rollback(within(t), ""); !errors.Is(err, handoff.ErrNoUpgrade) {
		t.Errorf("Rollback() = %v, want ErrNoUpgrade", err)
	}
	// They hold up no Shutdown.
	began := time.Now()
	if err := up.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	t.Logf("Shutdown took %v", time.Since(began))
	for range requests {
		if err := <-ends; err != nil {
			t.Errorf("Follow() = %v", err)
		}
	}
}

// TestEndlessStatus asks servers that never end their status for it: the client ends it,
// before it takes much memory.
func TestEndlessStatus(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{
		"many objects in one answer": `{"status":{"sockets":[` + strings.Repeat(`{},`, 300_000) + `{}]}}`,
		"many sockets":               `{"status":{"sockets":[` + strings.Repeat(`{},`, 4000) + `{}]}}`,
		"many bytes":                 `{"status":{"version":"` + strings.Repeat("x", 1<<19) + `"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := fake(t, func(conn *fdpass.Conn) {
				for range 100 {
					send(conn, &wire.Response{Version: 1, Body: []byte(part)})
				}
				send(conn, &wire.Response{Version: 1, Final: true, Body: []byte(`{"status":{}}`)})
			})
			if _, err := c.Status(within(t)); !errors.Is(err, handoff.ErrProtocol) {
				t.Errorf("Status() = %v, want ErrProtocol", err)
			}
		})
	}
}

// TestFollowEnded follows a line whose successor ends before a client can ask it: the
// line has ended, and that is no error. A server that never existed is one.
func TestFollowEnded(t *testing.T) {
	t.Parallel()
	var c *control.Client
	made := make(chan struct{})
	c = fake(t, func(conn *fdpass.Conn) {
		<-made
		if err := os.Remove(c.Socket()); err != nil {
			t.Error(err)
		}
		send(conn, &wire.Response{Version: 1, Body: []byte(`{"event":{"kind":"committed","pid":7,"report":{"mode":"takeover","successor":{"pid":8}}}}`)})
		send(conn, &wire.Response{Version: 1, Final: true, Body: []byte(`{}`)})
	})
	close(made)
	var got []handoff.EventKind
	each := func(e handoff.Event) error {
		got = append(got, e.Kind)
		return nil
	}
	if err := c.Follow(within(t), each); err != nil || !slices.Equal(got, []handoff.EventKind{handoff.EventCommitted}) {
		t.Errorf("Follow() = %v after %v, want nil after committed", err, got)
	}
	if err := c.Follow(within(t), each); !errors.Is(err, control.ErrNoServer) {
		t.Errorf("Follow() without a server = %v, want ErrNoServer", err)
	}
}
