package handoffhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// TestNotTaken has a successor that takes no connection: they stay, and each
// ends with its next response. What is not asked for is never closed before the
// linger limit.
func TestNotTaken(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	const n = 5
	var cs []*client
	for range n {
		c := l.dial()
		c.send(post)
		c.want(1, "POST", "/b")
		cs = append(cs, c)
	}
	fresh := l.dial()
	eventually(t, "connection is accepted", func() bool { return l.now.s.Open() == n+1 })
	l.now.up.refuse = -1
	g := l.replace()
	eventually(t, "all were offered", func() bool {
		g.up.mu.Lock()
		defer g.up.mu.Unlock()
		return g.up.sent == 4*(n+1)
	})
	for _, c := range append(cs, fresh) {
		c.send(post)
		if res := c.want(1, "POST", "/b"); !res.close {
			t.Error("the response doesn't ask to close")
		}
		c.wantEOF()
	}
	if r := g.gone(t); r.Moved != 0 || r.Stayed != n+1 || r.Why == "" || len(r.Cut) != 0 {
		t.Errorf("linger: %+v, want all stayed and none cut", r)
	}
}

// TestTakenLater has a successor that is short for a moment: the connection is
// offered again, and served by the predecessor until then.
func TestTakenLater(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	c := l.dial()
	c.send(post)
	c.want(1, "POST", "/b")
	l.now.up.refuse = 3
	if r := l.upgrade(); r.Moved != 1 || r.Stayed != 0 {
		t.Errorf("linger: %+v, want one moved", r)
	}
	c.send(post)
	if res := c.want(2, "POST", "/b"); res.close {
		t.Error("the response asks to close")
	}
}

// TestStop ends a service without a successor: responses ask to close, and what
// is silent is closed at the limit alone, oldest first, spread over time, and
// counted.
func TestStop(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var closed []string
	var when []time.Time
	idled := 0
	const spread = 200 * time.Millisecond
	l := newLine(t, &handoffhttp.Config{Spread: spread}, func(g *generation) {
		g.srv.ConnState = func(nc net.Conn, st http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			switch st {
			case http.StateIdle:
				idled++
			case http.StateClosed:
				closed, when = append(closed, nc.RemoteAddr().String()), append(when, time.Now())
			}
		}
	})
	// ask returns when the server takes the connection for idle as well.
	ask := func(c *client) {
		t.Helper()
		mu.Lock()
		before := idled
		mu.Unlock()
		c.send(post)
		c.want(1, "POST", "/b")
		eventually(t, "the connection is idle", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return idled > before
		})
	}
	l.block("/a")
	busy := l.dial()
	busy.send(get)
	l.waitEntered()
	var idle []*client
	for range 4 {
		c := l.dial()
		ask(c)
		idle = append(idle, c)
	}
	// The last one is idle for the longest time, after this.
	for _, c := range idle[:3] {
		ask(c)
	}
	asks := l.dial()
	ask(asks)
	g := l.now
	g.end()
	// The linger begins a moment later than net/http stops.
	eventually(t, "a response asks to close", func() bool {
		asks.send(post)
		return asks.want(1, "POST", "/b").close
	})
	asks.wantEOF()
	eventually(t, "the connection is forgotten", func() bool { return g.s.Open() == 5 })
	mu.Lock()
	closed, when = nil, nil
	mu.Unlock()
	expired := time.Now()
	close(g.up.expired)
	for _, c := range idle {
		c.wantEOF()
	}
	if _, err := busy.receive("GET"); err == nil {
		t.Error("a request went on after the linger limit")
	}
	l.release("/a")
	r := g.gone(t)
	if diff := cmp.Diff(map[string]uint64{handoffhttp.CutIdle: 4, handoffhttp.CutRequest: 1}, r.Cut); diff != "" {
		t.Errorf("cut (-want +got):\n%s", diff)
	}
	want := []string{idle[3].LocalAddr().String(), idle[0].LocalAddr().String(), idle[1].LocalAddr().String(), idle[2].LocalAddr().String()}
	eventually(t, "all are closed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(closed) == 5
	})
	closed = slices.DeleteFunc(closed, func(a string) bool { return a == busy.LocalAddr().String() })
	if diff := cmp.Diff(want, closed); diff != "" {
		t.Errorf("order of closing (-want +got):\n%s", diff)
	}
	for i, at := range when[:4] { // busy is cut after them
		if least := spread * time.Duration(i) / 4; at.Sub(expired) < least {
			t.Errorf("connection %d was closed %v after the limit, want %v or more", i, at.Sub(expired), least)
		}
	}
}

// TestHooks shows that the user's hooks still run: with the right connection and
// context.
func TestHooks(t *testing.T) {
	t.Parallel()
	type baseKey struct{}
	type connKey struct{}
	var mu sync.Mutex
	var states []string
	l := newLine(t, nil, func(g *generation) {
		g.srv.BaseContext = func(ln net.Listener) context.Context {
			if _, ok := ln.(*net.TCPListener); !ok {
				t.Errorf("BaseContext(%T), want the user's listener", ln)
			}
			return context.WithValue(context.Background(), baseKey{}, g.n)
		}
		conns := make(map[net.Conn]int)
		g.srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
			mu.Lock()
			defer mu.Unlock()
			conns[nc] = len(conns) + 1
			return context.WithValue(ctx, connKey{}, nc)
		}
		g.srv.ConnState = func(nc net.Conn, st http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, fmt.Sprintf("%d.%d %s", g.n, conns[nc], st))
		}
		h := g.srv.Handler
		g.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Context().Value(baseKey{}) != g.n || r.Context().Value(http.ServerContextKey).(*http.Server).Handler == nil {
				t.Error("the request's context lacks what BaseContext or net/http put there")
			}
			nc, _ := r.Context().Value(connKey{}).(net.Conn)
			if inner, ok := nc.(interface{ NetConn() net.Conn }); !ok {
				t.Errorf("ConnContext(%T), want a wrapper", nc)
			} else if _, ok := inner.NetConn().(*net.TCPConn); !ok {
				t.Errorf("NetConn() = %T", inner.NetConn())
			}
			h.ServeHTTP(w, r)
		})
	})
	c := l.dial()
	for gen := 1; gen <= 2; gen++ {
		c.send(post)
		c.want(gen, "POST", "/b")
		l.upgrade()
	}
	eventually(t, "the hook gets the states", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(states) == 8
	})
	want := []string{
		"1.1 new", "1.1 active", "1.1 idle", "1.1 closed",
		"2.1 new", "2.1 active", "2.1 idle", "2.1 closed",
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

// TestHijacked has connections that handlers took: they count in the linger, are
// told of its begin, and pass themselves on or end.
func TestHijacked(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	goodbyes := 0
	cfg := &handoffhttp.Config{Goodbye: func(ctx context.Context, nc net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		goodbyes++
		_, _ = io.WriteString(nc, "goodbye\n")
	}}
	hooked := make(chan int, 2)
	l := newLine(t, cfg, func(g *generation) {
		g.srv.RegisterOnShutdown(func() { hooked <- g.n })
		g.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			lingering := handoffhttp.Lingering(r.Context())
			nc, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			if r.URL.Path == "/polite" {
				<-lingering
				_, _ = io.WriteString(nc, "bye\n")
				return
			}
			for {
				s, err := rw.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = io.WriteString(nc, "echo "+s)
			}
		})
	})
	open := func(path string) *client {
		c := l.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("response %v, %v, want 101", res, err)
		}
		return c
	}
	polite, first, second := open("/polite"), open("/echo"), open("/echo")
	eventually(t, "all are hijacked", func() bool { return l.now.s.Open() == 3 })
	g := l.replace()
	line := func(c *client, want string) {
		t.Helper()
		if s, err := c.r.ReadString('\n'); err != nil || s != want {
			t.Fatalf("read %q, %v, want %q", s, err, want)
		}
	}
	select {
	case <-hooked: // while the connections are open
	case <-time.After(patience):
		t.Fatal("the function of RegisterOnShutdown has not run when the linger begins")
	}
	line(first, "goodbye\n")
	line(second, "goodbye\n")
	first.send("a\n")
	line(first, "echo a\n")
	_ = first.Close()
	b, _ := io.ReadAll(polite.r)
	if !strings.Contains(string(b), "bye\n") {
		t.Errorf("read %q, want bye", b)
	}
	close(g.up.expired)
	if _, err := second.r.ReadByte(); err == nil {
		t.Error("a hijacked connection went on after the linger limit")
	}
	r := g.gone(t)
	if n := r.Cut[handoffhttp.CutHijacked]; r.Open != 3 || n < 1 || n > 2 || len(r.Cut) != 1 {
		t.Errorf("linger: %+v, want 3 open and the last cut", r)
	}
	if goodbyes != 3 {
		t.Errorf("%d goodbyes, want 3", goodbyes)
	}
}

// TestGoodbyeMoves has a hijacked connection passed on with its state.
func TestGoodbyeMoves(t *testing.T) {
	t.Parallel()
	var l *line
	cfg := &handoffhttp.Config{Goodbye: func(ctx context.Context, nc net.Conn) {
		if err := l.old[0].up.SendConn(ctx, "mine", nc, []byte("state")); err != nil {
			t.Error(err)
		}
	}}
	l = newLine(t, cfg, func(g *generation) {
		_, _ = g.up.Conns("mine") // a fake has no error
		g.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		})
	})
	c := l.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("response %v, %v, want 101", res, err)
	}
	g := l.replace()
	mc := <-l.now.up.box("mine")
	if r := g.gone(t); len(r.Cut) != 0 {
		t.Errorf("linger: %+v, want none cut", r)
	}
	defer mc.Conn.Close()
	c.send("hello\n")
	if s, err := bufio.NewReader(mc.Conn).ReadString('\n'); err != nil || s != "hello\n" || string(mc.State) != "state" {
		t.Errorf("moved with %q, read %q, %v", mc.State, s, err)
	}
}

// TestEvents has a response without end (Server-Sent Events) that ends when the linger
// begins. Its connection moves.
func TestEvents(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, func(g *generation) {
		h := g.srv.Handler
		g.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/events" {
				h.ServeHTTP(w, r)
				return
			}
			_, _ = io.WriteString(w, "data: first\n\n")
			_ = http.NewResponseController(w).Flush()
			<-handoffhttp.Lingering(r.Context())
			_, _ = io.WriteString(w, "data: last\n\n")
		})
	})
	c := l.dial()
	c.send("GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := l.replace()
	b, err := io.ReadAll(res.Body)
	if err != nil || string(b) != "data: first\n\ndata: last\n\n" {
		t.Fatalf("read %q, %v, want both events", b, err)
	}
	if r := g.gone(t); r.Moved != 1 {
		t.Errorf("linger: %+v, want one moved", r)
	}
	c.send(post)
	c.want(2, "POST", "/b")
	if handoffhttp.Lingering(context.Background()) != nil {
		t.Error("Lingering of another context is not nil")
	}
}

// TestLingerContext ends a linger by its context.
func TestLingerContext(t *testing.T) {
	t.Parallel()
	up := newFakeUpgrader()
	srv := &http.Server{Handler: http.NotFoundHandler()}
	s := handoffhttp.NewTestServer(up, srv, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln = s.Wrap(ln)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	eventually(t, "connection is accepted", func() bool { return s.Open() == 1 })
	close(up.done)
	_ = ln.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r := s.Linger(ctx); r.Cut[handoffhttp.CutIdle] != 1 {
		t.Errorf("linger: %+v, want one cut", r)
	}
	<-served
}
