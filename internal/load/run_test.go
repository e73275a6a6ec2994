package load_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// patience bounds a run in which the expected event does not happen.
const patience = 20 * time.Second

// runUntil runs the clients until ok says so.
func runUntil(t *testing.T, c load.Config, ok func(load.Stats) bool) load.Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reached := false
	c.Every = 5 * time.Millisecond
	c.Spacing = time.Millisecond
	c.Progress = func(s load.Stats) {
		if !reached && ok(s) {
			reached = true
			cancel()
		}
	}
	s, err := load.Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if !reached {
		t.Fatalf("not within %v: %+v", patience, s)
	}
	return s
}

func listen(t *testing.T, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// serve serves each connection of ln, in order of its arrival.
func serve(t *testing.T, ln net.Listener, f func(n int, c net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ln
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { // ends with the client
				defer c.Close()
				f(n, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
}

// TestRun drives a service of each kind. Nothing fails.
func TestRun(t *testing.T) {
	t.Parallel()
	svc := &load.Service{Version: "v1", Patience: patience}
	answer := func(_ int, c net.Conn) {
		if err := svc.ServeConn(c); err != nil {
			t.Errorf("ServeConn: %v", err)
		}
	}
	tcp, web := listen(t, "tcp"), listen(t, "tcp")
	serve(t, tcp, answer)
	targets := []load.Target{
		{Name: "tcp", Kind: load.Once, Network: "tcp", Address: tcp.Addr().String(), Workers: 2},
		{Name: "keep", Kind: load.Keep, Network: "tcp", Address: tcp.Addr().String(), Workers: 2},
		{Name: "marked", Kind: load.Marked, Network: "tcp", Address: tcp.Addr().String(), Workers: 2},
		{Name: "http", Kind: load.HTTP, Network: "tcp", Address: web.Addr().String(), Workers: 2},
		{Name: "post", Kind: load.Post, Network: "tcp", Address: web.Addr().String(), Workers: 2},
	}
	if runtime.GOOS != "windows" {
		unix := listen(t, "unix")
		serve(t, unix, answer)
		targets = append(targets, load.Target{Name: "unix", Kind: load.Once, Network: "unix", Address: unix.Addr().String(), Workers: 2})
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	targets = append(targets, load.Target{Name: "udp", Kind: load.Datagram, Network: "udp", Address: pc.LocalAddr().String(), Workers: 2})
	srv := &http.Server{Handler: svc}
	var wg sync.WaitGroup
	wg.Go(func() { _ = svc.ServePackets(pc) })
	wg.Go(func() { _ = srv.Serve(web) })
	t.Cleanup(func() {
		_, _ = pc.Close(), srv.Close()
		wg.Wait()
	})

	s := runUntil(t, load.Config{Targets: targets, Questions: 5}, func(s load.Stats) bool {
		for name, ts := range s.Targets {
			if name != "marked" && ts.Connections < 5 {
				return false
			}
		}
		return s.Open == 4
	})
	if s.Failed != 0 || len(s.Samples) != 0 {
		t.Errorf("%d failed: %+v", s.Failed, s.Samples)
	}
	if s.AnsweredLast != "v1" || s.Open != 0 {
		t.Errorf("%q answered last, %d open, want v1 and none", s.AnsweredLast, s.Open)
	}
	var sum uint64
	for name, ts := range s.Targets {
		sum += ts.Connections
		if ts.Versions["v1"] != ts.Connections {
			t.Errorf("%s: %d of %d answered by v1", name, ts.Versions["v1"], ts.Connections)
		}
	}
	if sum != s.Connections {
		t.Errorf("the targets have %d connections, all of it has %d", sum, s.Connections)
	}
	if keep := s.Targets["keep"]; keep.Questions != 5*keep.Connections {
		t.Errorf("keep: %d questions on %d connections, want 5 on each", keep.Questions, keep.Connections)
	}
	if s.StallMS <= 0 {
		t.Errorf("StallMS = %v: not measured", s.StallMS)
	}
}

// TestMarked has a service end connections by a marked answer when another
// version has taken over.
func TestMarked(t *testing.T) {
	t.Parallel()
	ending := make(chan struct{})
	gen := func(n uint64) func() uint64 { return func() uint64 { return n } }
	v1 := &load.Service{Version: "v1", Generation: gen(1), Ending: ending}
	v2 := &load.Service{Version: "v2", Generation: gen(2)}
	ln := listen(t, "tcp")
	serve(t, ln, func(_ int, c net.Conn) {
		svc := v1
		select {
		case <-ending:
			svc = v2
		default:
		}
		if err := svc.ServeConn(c); err != nil {
			t.Errorf("ServeConn: %v", err)
		}
	})
	var once sync.Once
	s := runUntil(t, load.Config{Targets: []load.Target{
		{Name: "once", Kind: load.Once, Network: "tcp", Address: ln.Addr().String(), Workers: 1},
		{Name: "marked", Kind: load.Marked, Network: "tcp", Address: ln.Addr().String(), Workers: 3},
	}}, func(s load.Stats) bool {
		if s.Open == 3 {
			once.Do(func() { close(ending) })
		}
		return s.AnsweredLast == "v2" && s.Targets["marked"].AnsweredLast == "v2" && s.Targets["marked"].Connections == 3 && s.Open == 3
	})
	if s.Failed != 0 {
		t.Errorf("%d failed: %+v", s.Failed, s.Samples)
	}
	if s.Targets["marked"].Versions["v1"] != 3 {
		t.Errorf("connections by version: %v, want 3 of v1", s.Targets["marked"].Versions)
	}
}

// TestPost counts requests on connections that stay when another version
// answers, and that are made anew when the service has ended them.
func TestPost(t *testing.T) {
	t.Parallel()
	var conns, newer, closing atomic.Int64
	ln := listen(t, "tcp")
	v1, v2 := &load.Service{Version: "v1"}, &load.Service{Version: "v2"}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if closing.Add(-1) >= 0 {
				w.Header().Set("Connection", "close")
			}
			if newer.Load() == 0 {
				v1.ServeHTTP(w, r)
			} else {
				v2.ServeHTTP(w, r)
			}
		}),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns.Add(1)
			}
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) }) // ends with srv
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
	})
	s := runUntil(t, load.Config{Targets: []load.Target{
		{Name: "post", Kind: load.Post, Network: "tcp", Address: ln.Addr().String(), Workers: 2},
	}}, func(s load.Stats) bool {
		n := s.Targets["post"].Connections
		if n >= 20 && newer.Swap(1) == 0 {
			closing.Store(1)
		}
		return s.Moved >= 1 && closing.Load() < 0 && n >= 40
	})
	if s.Failed != 0 {
		t.Errorf("%d failed: %+v", s.Failed, s.Samples)
	}
	if got := conns.Load(); got != 3 {
		t.Errorf("%d connections, want 3: one of two was ended", got)
	}
	if post := s.Targets["post"]; post.AnsweredLast != "v2" || post.Versions["v1"] == 0 || post.Questions != post.Connections {
		t.Errorf("requests: %+v, want the last of v2", post)
	}
}

// TestPostIdle has a service close connections between two requests, as
// http.Server.Shutdown does: the request that follows is lost, and counts.
func TestPostIdle(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	serve(t, ln, func(_ int, c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		token, _ := io.ReadAll(req.Body)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nv1 %s", len(token)+3, token)
	})
	s := runUntil(t, load.Config{Targets: []load.Target{
		{Name: "post", Kind: load.Post, Network: "tcp", Address: ln.Addr().String(), Workers: 1},
	}}, func(s load.Stats) bool { return s.Connections >= 10 })
	if d := int64(s.Failed) - int64(s.Connections/2); d < -1 || d > 1 {
		t.Errorf("%d failed of %d, want every second one", s.Failed, s.Connections)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	ok := load.Target{Name: "a", Kind: load.Once, Workers: 1}
	for name, c := range map[string]load.Config{
		"no targets":   {},
		"no name":      {Targets: []load.Target{{Kind: load.Once, Workers: 1}}},
		"same name":    {Targets: []load.Target{ok, ok}},
		"unknown kind": {Targets: []load.Target{{Name: "a", Kind: "twice", Workers: 1}}},
		"no workers":   {Targets: []load.Target{{Name: "a", Kind: load.Once}}},
		"negative":     {Targets: []load.Target{ok}, Timeout: -1},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("not to run at all"))
		if _, err := load.Run(ctx, c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestServiceRefuses ends connections of clients that don't keep to the
// protocol.
func TestServiceRefuses(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"unknown verb": "sing q1\n",
		"endless line": strings.Repeat("x", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			end := make(chan error, 1)
			go func() { // ends with the connection
				end <- (&load.Service{Version: "v1"}).ServeConn(server)
				_ = server.Close()
			}()
			buf := make([]byte, 64)
			if _, err := client.Read(buf); err != nil {
				t.Fatal(err)
			}
			_, _ = client.Write([]byte(line)) // may be cut short
			if err := <-end; err == nil {
				t.Errorf("ServeConn took %q", line[:8])
			}
			_ = client.Close()
		})
	}
}

// A service tells of each question, before it answers.
func TestServiceServed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var tokens []string
	svc := &load.Service{Version: "v1", Served: func(token string) {
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, token)
	}}
	client, server := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the last answer
		defer server.Close()
		if err := svc.ServeConn(server); err != nil {
			t.Error(err)
		}
	})
	in := bufio.NewReader(client)
	for _, line := range []string{"", "keep a", "bye b"} {
		if line != "" {
			if _, err := io.WriteString(client, line+"\n"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	_ = client.Close() // a pipe
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = svc.ServePackets(pc) }) // ends with pc
	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_ = pc.Close() // a socket
	wg.Wait()
	svc.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader("d")))
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(tokens, want) {
		t.Errorf("Served was called with %q, want %q", tokens, want)
	}
}
