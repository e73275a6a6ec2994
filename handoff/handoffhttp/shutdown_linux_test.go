package handoffhttp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/netutil"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// A leaver is a server without an Upgrader.
type leaver struct {
	*line
	s      *handoffhttp.Server
	srv    *http.Server
	hooked chan struct{} // RegisterOnShutdown's function has run
	ended  chan error    // of Serve
	shut   chan error    // of Shutdown
	tls    bool          // clients speak it
	handle func(pattern string, h func(http.ResponseWriter, *http.Request))
}

// newLeaver starts a server on ln, by serve.
func newLeaver(tb testing.TB, ln net.Listener, cfg *handoffhttp.Config, serve func(s *handoffhttp.Server, ln net.Listener) error) *leaver {
	tb.Helper()
	l := &leaver{
		line:   &line{tb: tb, addr: ln.Addr().String(), blocked: make(map[string]chan struct{}), entered: make(chan string, 100), served: make(map[string]int)},
		hooked: make(chan struct{}), ended: make(chan error, 1), shut: make(chan error, 1),
	}
	answer := l.handler(1)
	mux := http.NewServeMux()
	l.handle = mux.HandleFunc
	mux.Handle("/", answer)
	mux.HandleFunc("/take", func(w http.ResponseWriter, r *http.Request) {
		nc, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
	})
	l.srv = &http.Server{Handler: mux, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	l.srv.Protocols.SetHTTP1(true)
	l.srv.Protocols.SetUnencryptedHTTP2(true)
	l.s = handoffhttp.New(l.srv, cfg)
	mux.Handle("/ready", l.s.Readiness())
	l.srv.RegisterOnShutdown(func() { close(l.hooked) })
	if serve == nil {
		serve = (*handoffhttp.Server).Serve
	}
	go func() { l.ended <- serve(l.s, ln) }() // ends with the listener
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = l.s.Shutdown(ctx) // of a test that has failed
	})
	return l
}

func (l *leaver) dial() *client {
	l.tb.Helper()
	c := l.line.dial()
	if l.tls {
		c.nc = tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true})
		c.r = bufio.NewReader(c.nc)
	}
	return c
}

// shutdown begins the end, and returns when the linger has begun.
func (l *leaver) shutdown(ctx context.Context) {
	l.tb.Helper()
	go func() { l.shut <- l.s.Shutdown(ctx) }()
	l.await("RegisterOnShutdown's function", l.hooked)
}

func (l *leaver) await(what string, c <-chan struct{}) {
	l.tb.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		l.tb.Fatalf("no %s", what)
	}
}

// gone waits for the end, of which the error is wanted.
func (l *leaver) gone(want error) *handoffhttp.Report {
	l.tb.Helper()
	select {
	case err := <-l.shut:
		if !errors.Is(err, want) {
			l.tb.Errorf("Shutdown: %v, want %v", err, want)
		}
	case <-time.After(patience):
		l.tb.Fatalf("Shutdown waits, with %d connections", l.s.Open())
	}
	if err := <-l.ended; !errors.Is(err, http.ErrServerClosed) {
		l.tb.Errorf("Serve: %v, want %v", err, http.ErrServerClosed)
	}
	return l.s.Linger(context.Background())
}

// take has a handler take a connection.
func (l *leaver) take() *client {
	l.tb.Helper()
	c := l.dial()
	c.send("GET /take HTTP/1.1\r\nHost: h\r\n\r\n")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		l.tb.Fatalf("response %v, %v, want 101", res, err)
	}
	return c
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return ln
}

func member(tb testing.TB) *reuseport.Listener { return join(tb, "127.0.0.1:0") }

// join returns a listener in the group of an address. Nothing accepts from it.
func join(tb testing.TB, addr string) *reuseport.Listener {
	tb.Helper()
	ln, err := reuseport.Listen(tb.Context(), "tcp", addr, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ln.Close() })
	return ln
}

// proxied is a listener of the PROXY protocol, whose connections read a line first.
type proxied struct{ net.Listener }

type proxiedConn struct {
	net.Conn
	once sync.Once
	in   *bufio.Reader
}

func (p proxied) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxiedConn{Conn: c, in: bufio.NewReader(c)}, nil
}

func (c *proxiedConn) Read(p []byte) (int, error) {
	c.once.Do(func() { _, _ = c.in.ReadString('\n') }) // Read returns the error
	return c.in.Read(p)
}

// TestShutdown ends a server with a connection at each stage, on each kind of listener.
func TestShutdown(t *testing.T) {
	t.Parallel()
	certFile, key, err := selfsigned.Write(t.TempDir(), "h")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, key)
	if err != nil {
		t.Fatal(err)
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	for _, c := range []struct {
		name    string
		listen  func(t *testing.T) net.Listener
		serve   func(*handoffhttp.Server, net.Listener) error
		tls     bool
		first   string // that clients send
		drained bool
	}{
		{name: "plain", listen: func(t *testing.T) net.Listener { return listen(t) }},
		{name: "systemd's", listen: func(t *testing.T) net.Listener {
			ln := listen(t)
			defer ln.Close()
			fd, err := fdx.Dup(ln.(syscall.Conn))
			if err != nil {
				t.Fatal(err)
			}
			ln, err = fdx.Listener(fd, "LISTEN_FDS")
			if err != nil {
				t.Fatal(err)
			}
			return ln
		}},
		{name: "reuseport", listen: func(t *testing.T) net.Listener { return member(t) }, drained: true},
		{name: "group", listen: func(t *testing.T) net.Listener {
			g, err := reuseport.ListenGroup(t.Context(), "tcp", "127.0.0.1:0", &reuseport.Config{Members: 2})
			if err != nil {
				t.Fatal(err)
			}
			return g.Listener()
		}, drained: true},
		{name: "TLS on reuseport", listen: func(t *testing.T) net.Listener { return member(t) }, tls: true, drained: true, serve: func(s *handoffhttp.Server, ln net.Listener) error {
			return s.ServeTLS(ln, certFile, key)
		}},
		{name: "the program's TLS on reuseport", listen: func(t *testing.T) net.Listener { return tls.NewListener(member(t), secure) }, tls: true, drained: true},
		{name: "LimitListener on reuseport", listen: func(t *testing.T) net.Listener { return netutil.LimitListener(member(t), 4) }, drained: true},
		{name: "PROXY on reuseport", listen: func(t *testing.T) net.Listener { return proxied{member(t)} }, first: "PROXY UNKNOWN\r\n", drained: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := &handoffhttp.Config{LingerTimeout: -1, Goodbye: func(ctx context.Context, nc net.Conn) {
				_, _ = io.WriteString(nc, "goodbye\n")
				_ = nc.Close() // the client reads the end
			}}
			l := newLeaver(t, c.listen(t), cfg, c.serve)
			l.tls = c.tls
			dial := func() *client {
				cl := l.dial()
				if c.first != "" {
					cl.send(c.first)
				}
				return cl
			}
			l.block("/a")
			idle, busy := dial(), dial()
			idle.send(post)
			idle.want(1, "POST", "/b")
			busy.send(get)
			l.waitEntered()
			const open = 4
			taken := dial()
			taken.send("GET /take HTTP/1.1\r\nHost: h\r\n\r\n")
			if _, err := taken.r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			silent := dial()
			eventually(t, "all are accepted", func() bool { return l.s.Open() == open })

			if c.drained {
				join(t, l.addr)
			}
			l.shutdown(context.Background())
			if b, _ := io.ReadAll(taken.r); !strings.HasSuffix(string(b), "goodbye\n") {
				t.Errorf("a connection that a handler had taken reads %q, want goodbye", b)
			}
			for _, cl := range []*client{silent, idle} {
				cl.send(post)
				if res := cl.want(1, "POST", "/b"); !res.close {
					t.Error("the response does not ask to close")
				}
				cl.wantEOF()
			}
			l.release("/a")
			busy.want(1, "GET", "/a") // from before the linger
			busy.send(post)
			if res := busy.want(1, "POST", "/b"); !res.close {
				t.Error("the response does not ask to close")
			}
			r := l.gone(nil)
			if r.Open != open || len(r.Cut) != 0 || c.drained != (len(r.Drains) == 1) {
				t.Errorf("report %+v, want %d open, none cut, drained %v", r, open, c.drained)
			}
			for _, d := range r.Drains {
				if d.LossPossible {
					t.Errorf("drain %+v, want no loss", d)
				}
			}
			if err := l.s.Serve(listen(t)); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("Serve after Shutdown: %v, want %v", err, http.ErrServerClosed)
			}
		})
	}
}

// TestShutdownLimit has connections that stay silent: at the limit they are closed, and
// a request goes on until the context ends.
func TestShutdownLimit(t *testing.T) {
	t.Parallel()
	cfg := &handoffhttp.Config{LingerTimeout: time.Millisecond, Spread: -1}
	l := newLeaver(t, listen(t), cfg, nil)
	l.block("/a")
	l.block("/c")
	idle, busy, cut := l.dial(), l.dial(), l.dial()
	idle.send(post)
	idle.want(1, "POST", "/b")
	for c, request := range map[*client]string{busy: get, cut: strings.Replace(get, "/a", "/c", 1)} {
		c.send(request)
		l.waitEntered()
	}
	taken := l.take()
	eventually(t, "the connection is idle", func() bool { return l.s.Idle() == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	l.shutdown(ctx)
	idle.wantEOF()
	taken.wantEOF()
	l.release("/a")
	busy.want(1, "GET", "/a")
	busy.wantEOF() // idle beyond the limit
	cancel()
	r := l.gone(context.Canceled)
	l.release("/c")
	if r.Cut[handoffhttp.CutIdle] != 2 || r.Cut[handoffhttp.CutHijacked] != 1 || r.Cut[handoffhttp.CutRequest] != 1 {
		t.Errorf("cut %v, want two idle, one hijacked, one request", r.Cut)
	}
}

// TestShutdownDeadline has a context whose deadline comes before the limit: what is idle
// is closed before it, without an error.
func TestShutdownDeadline(t *testing.T) {
	t.Parallel()
	l := newLeaver(t, listen(t), nil, nil)
	c := l.dial()
	c.send(post)
	c.want(1, "POST", "/b")
	eventually(t, "the connection is idle", func() bool { return l.s.Idle() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	l.shutdown(ctx)
	if r := l.gone(nil); r.Cut[handoffhttp.CutIdle] != 1 {
		t.Errorf("cut %v, want one idle", r.Cut)
	}
}

// TestShutdownDelay accepts on while the balancer learns of the end.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	const check = "GET /ready HTTP/1.1\r\nHost: h\r\n\r\n"
	l := newLeaver(t, listen(t), &handoffhttp.Config{Delay: time.Hour}, nil)
	kept := l.dial()
	kept.send(check)
	if res, err := kept.receive("GET"); err != nil || res.close {
		t.Fatalf("ready: %+v, %v, want 200", res, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { l.shut <- l.s.Shutdown(ctx) }()
	eventually(t, "the check fails", func() bool {
		rec := httptest.NewRecorder()
		l.s.Readiness().ServeHTTP(rec, nil)
		return rec.Code == http.StatusServiceUnavailable
	})
	for _, c := range []*client{kept, l.dial(), l.dial()} {
		c.send(post)
		if res := c.want(1, "POST", "/b"); !res.close {
			t.Error("the response does not ask to close")
		}
		c.wantEOF()
	}
	select {
	case <-l.hooked:
		t.Error("the linger has begun before the delay was over")
	default:
	}
	cancel()
	l.await("RegisterOnShutdown's function", l.hooked)
	if r := l.gone(nil); len(r.Cut) != 0 {
		t.Errorf("cut %v, want none", r.Cut)
	}
}

// TestShutdownDelayEnds goes on to the linger when the delay is over.
func TestShutdownDelayEnds(t *testing.T) {
	t.Parallel()
	l := newLeaver(t, listen(t), &handoffhttp.Config{Delay: time.Millisecond}, nil)
	l.shutdown(context.Background())
	l.gone(nil)
}

// TestShutdownHTTP2 sends both phases of GOAWAY. A client that connected for its first
// request gets it answered before the first.
func TestShutdownHTTP2(t *testing.T) {
	t.Parallel()
	l := newLeaver(t, listen(t), nil, nil)
	used, fresh := l.dial(), l.dial()
	for _, c := range []*client{used, fresh} {
		c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		c.sendFrame(frame{kind: frameSetting})
		c.until("settings", func(f frame) bool { return f.kind == frameSetting && f.flags == 1 })
	}
	used.request2(1)
	used.answer2(1)
	l.shutdown(context.Background())
	used.until("GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	ping := used.until("PING", func(f frame) bool { return f.kind == framePing })
	used.request2(3) // it crosses GOAWAY
	used.answer2(3)
	fresh.request2(1)
	if f := fresh.until("response", func(f frame) bool { return f.kind == frameGoAway || f.stream == 1 }); f.kind == frameGoAway {
		t.Error("GOAWAY before the answer to the first request")
	}
	fresh.until("GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	for _, c := range []*client{used, fresh} {
		c.sendFrame(frame{kind: framePing, flags: 1, payload: ping.payload})
		c.until("GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
		if _, err := c.frame(); !errors.Is(err, io.EOF) {
			t.Errorf("after it: %v, want EOF", err)
		}
	}
	if r := l.gone(nil); len(r.Cut) != 0 {
		t.Errorf("cut %v, want none", r.Cut)
	}
}

// TestShutdownOfOriginal calls Shutdown of the http.Server that New has copied: it ends
// nothing, and the log says so.
func TestShutdownOfOriginal(t *testing.T) {
	t.Parallel()
	lines := make(lineWriter, 1)
	srv := &http.Server{}
	s := handoffhttp.New(srv, &handoffhttp.Config{Logger: hclog.New(&hclog.LoggerOptions{Output: lines})})
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-lines; !strings.Contains(got, "call Server.Shutdown") {
		t.Errorf("the log: %s", got)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A lineWriter passes on each line.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default: // the first one counts
	}
	return len(p), nil
}

// TestRunWithoutUpgrader is the whole life of a server on two listeners.
func TestRunWithoutUpgrader(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ran := make(chan error, 1)
	lns := []net.Listener{listen(t), member(t)}
	l := &line{tb: t}
	srv := &http.Server{Handler: l.handler(1)}
	go func() { ran <- handoffhttp.Run(ctx, nil, srv, lns...) }()
	var clients []*client
	for _, ln := range lns {
		l.addr = ln.Addr().String()
		c := l.dial()
		c.send(get)
		c.want(1, "GET", "/a")
		clients = append(clients, c)
	}
	join(t, l.addr)
	cancel()
	for _, c := range clients {
		for closes := false; !closes; {
			c.send(get)
			closes = c.want(1, "GET", "/a").close
		}
		c.wantEOF()
	}
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}
