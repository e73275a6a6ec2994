package handoffhttp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// TestHijackedTLS has handlers take connections of a TLS listener of the program's, before
// the linger and in it. Each gets its goodbye, the linger waits for them, and BaseContext
// gets the program's listener.
func TestHijackedTLS(t *testing.T) {
	t.Parallel()
	certFile, key, err := selfsigned.Write(t.TempDir(), "h")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, key)
	if err != nil {
		t.Fatal(err)
	}
	up := newFakeUpgrader()
	taken, goodbyes := make(chan net.Conn, 2), make(chan net.Conn, 2)
	var taking sync.Mutex // a handler from Hijack to its response
	began, base := make(chan struct{}), make(chan net.Listener, 1)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-began
			}
			taking.Lock()
			defer taking.Unlock()
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			taken <- nc
		}),
		BaseContext: func(ln net.Listener) context.Context {
			base <- ln
			return context.Background()
		},
	}
	srv.RegisterOnShutdown(func() { close(began) })
	s := handoffhttp.NewTestServer(up, srv, &handoffhttp.Config{Goodbye: func(_ context.Context, nc net.Conn) {
		taking.Lock()
		defer taking.Unlock()
		goodbyes <- nc
		_, _ = io.WriteString(nc, "goodbye\n")
		_ = nc.Close()
	}})
	ln := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{cert}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }() // ends with ln
	if got := <-base; got != ln {
		t.Errorf("BaseContext gets %T %v, want the listener that Serve got", got, got)
	}
	dial := func(path string) *bufio.Reader {
		t.Helper()
		nc, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(patience)) // Read tells
		if _, err := io.WriteString(nc, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(nc)
	}
	goodbye := func(r *bufio.Reader) {
		t.Helper()
		if _, err := http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "goodbye\n" {
			t.Errorf("read %q, %v, want goodbye", b, err)
		}
	}
	before := dial("/take")
	eventually(t, "it is taken", func() bool { return len(taken) == 1 })
	later := dial("/wait")
	eventually(t, "both are open", func() bool { return s.Begun() == 2 })
	close(up.done)
	_ = ln.Close()
	r := s.Linger(context.Background())
	goodbye(before)
	goodbye(later)
	if r.Open != 2 || len(r.Cut) != 0 {
		t.Errorf("report %+v, want two open and none cut", r)
	}
	one, other := <-goodbyes, <-goodbyes
	if a, b := <-taken, <-taken; (a != one || b != other) && (a != other || b != one) {
		t.Error("Goodbye gets other connections than Hijack has returned")
	}
	<-served
}
