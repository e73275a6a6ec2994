package handoffhttp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// TestShutdownMidRequest ends a server with requests of which a part has arrived: each is
// answered when the rest comes.
func TestShutdownMidRequest(t *testing.T) {
	t.Parallel()
	const upload = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n"
	for _, c := range []struct {
		name, before, header, body string
		goOn                       bool // the client waits for 100 Continue
	}{
		{"a byte", upload[:1], upload[1:] + "\r\n", "body", false},
		{"half a header", upload, "\r\n", "body", false},
		{"half a body", upload + "\r\nbo", "", "dy", false},
		{"a chunk", "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n", "", "2\r\ndy\r\n0\r\n\r\n", false},
		{"100-continue", upload + "Expect: 100-continue\r\n\r\n", "", "body", true},
		{"100-continue, half a header", upload + "Expect: 100-continue\r\n", "\r\n", "body", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLeaver(t, listen(t), nil, nil)
			cl := l.dial()
			cl.send(c.before)
			eventually(t, "it has arrived", func() bool { return l.s.Begun() == 1 })
			l.shutdown(context.Background())
			cl.send(c.header)
			if c.goOn {
				if line, err := cl.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
					t.Fatalf("read %q, %v, want 100 Continue", line, err)
				}
				if _, err := cl.r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			cl.send(c.body)
			if res, err := cl.receive("POST"); err != nil {
				t.Errorf("the request fails: %v", err)
			} else if !res.close { // it was in a handler before
				cl.send(post)
				cl.want(1, "POST", "/b")
			}
			cl.wantEOF()
			if r := l.gone(nil); r.Open != 1 || len(r.Cut) != 0 {
				t.Errorf("report %+v, want one open and none cut", r)
			}
		})
	}
}

// TestShutdownPipeline ends a server with a second request in its buffer behind one that
// is being served: both are answered.
func TestShutdownPipeline(t *testing.T) {
	t.Parallel()
	l := newLeaver(t, listen(t), nil, nil)
	l.block("/a")
	c := l.dial()
	c.send(get + post)
	l.waitEntered()
	l.shutdown(context.Background())
	l.release("/a")
	c.want(1, "GET", "/a")
	if res := c.want(1, "POST", "/b"); !res.close {
		t.Error("the response does not ask to close")
	}
	c.wantEOF()
	l.gone(nil)
}

// TestShutdownHandshake ends a server in the midst of a TLS handshake.
func TestShutdownHandshake(t *testing.T) {
	t.Parallel()
	certFile, key, err := selfsigned.Write(t.TempDir(), "h")
	if err != nil {
		t.Fatal(err)
	}
	l := newLeaver(t, listen(t), nil, func(s *handoffhttp.Server, ln net.Listener) error { return s.ServeTLS(ln, certFile, key) })
	c := l.dial()
	eventually(t, "it is accepted", func() bool { return l.s.Open() == 1 })
	held := &halves{Conn: c.nc, go1: make(chan struct{}), sent: make(chan struct{})}
	c.nc = tls.Client(held, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	c.r.Reset(c.nc)
	sent := make(chan error, 1)
	go func() { // ends with the handshake
		_, err := io.WriteString(c.nc, post)
		sent <- err
	}()
	<-held.sent
	eventually(t, "half a ClientHello has arrived", func() bool { return l.s.Begun() == 1 })
	l.shutdown(context.Background())
	close(held.go1)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if res := c.want(1, "POST", "/b"); !res.close {
		t.Error("the response does not ask to close")
	}
	c.wantEOF()
	l.gone(nil)
}

// halves sends the second half of what is first written later.
type halves struct {
	net.Conn
	begun     bool
	sent, go1 chan struct{}
}

func (h *halves) Write(p []byte) (int, error) {
	if h.begun {
		return h.Conn.Write(p)
	}
	h.begun = true
	n, err := h.Conn.Write(p[:len(p)/2])
	close(h.sent)
	<-h.go1
	if err != nil {
		return n, err
	}
	m, err := h.Conn.Write(p[n:])
	return n + m, err
}

// TestShutdownStreams ends a server with HTTP/2 streams in handlers: each is answered, and
// the connection ends behind the last.
func TestShutdownStreams(t *testing.T) {
	t.Parallel()
	l := newLeaver(t, listen(t), nil, nil)
	l.block("/")
	c := l.dial()
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	c.sendFrame(frame{kind: frameSetting})
	c.until("settings", func(f frame) bool { return f.kind == frameSetting && f.flags == 1 })
	for _, id := range []uint32{1, 3, 5} {
		c.request2(id)
		l.waitEntered()
	}
	l.shutdown(context.Background())
	c.until("GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	ping := c.until("PING", func(f frame) bool { return f.kind == framePing })
	c.sendFrame(frame{kind: framePing, flags: 1, payload: ping.payload})
	l.release("/")
	c.answers2(1, 3, 5)
	c.until("GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	if r := l.gone(nil); len(r.Cut) != 0 {
		t.Errorf("cut %v, want none", r.Cut)
	}
}

// TestShutdownPanic has a handler panic in the linger: its own request fails, and no other.
func TestShutdownPanic(t *testing.T) {
	t.Parallel()
	l := newLeaver(t, listen(t), nil, nil)
	l.handle("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	bad, good := l.dial(), l.dial()
	eventually(t, "both are accepted", func() bool { return l.s.Open() == 2 })
	l.shutdown(context.Background())
	bad.send("GET /panic HTTP/1.1\r\nHost: h\r\n\r\n")
	bad.wantEOF()
	good.send(post)
	good.want(1, "POST", "/b")
	good.wantEOF()
	if r := l.gone(nil); r.Open != 2 || len(r.Cut) != 0 {
		t.Errorf("report %+v, want two open and none cut", r)
	}
}

// TestShutdownHijack has a handler take a connection in the linger: it gets its goodbye.
func TestShutdownHijack(t *testing.T) {
	t.Parallel()
	said := make(chan net.Conn, 1)
	l := newLeaver(t, listen(t), &handoffhttp.Config{Goodbye: func(_ context.Context, nc net.Conn) { said <- nc }}, nil)
	c := l.dial()
	eventually(t, "it is accepted", func() bool { return l.s.Open() == 1 })
	l.shutdown(context.Background())
	c.send("GET /take HTTP/1.1\r\nHost: h\r\n\r\n")
	if line, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 101") {
		t.Fatalf("read %q, %v, want 101", line, err)
	}
	_ = (<-said).Close()
	if r := l.gone(nil); len(r.Cut) != 0 {
		t.Errorf("cut %v, want none", r.Cut)
	}
}

// TestShutdownOrder calls Shutdown twice, and before Serve, and with a context that has
// ended.
func TestShutdownOrder(t *testing.T) {
	t.Parallel()
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		l := newLeaver(t, listen(t), nil, nil)
		c := l.dial()
		eventually(t, "it is accepted", func() bool { return l.s.Open() == 1 })
		l.shutdown(context.Background())
		second := make(chan error, 1)
		go func() { second <- l.s.Shutdown(context.Background()) }()
		c.send(post)
		c.want(1, "POST", "/b")
		l.gone(nil)
		if err := <-second; err != nil {
			t.Errorf("the second Shutdown: %v", err)
		}
	})
	t.Run("before Serve", func(t *testing.T) {
		t.Parallel()
		s := handoffhttp.New(&http.Server{}, nil)
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		ln := listen(t)
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v, want %v", err, http.ErrServerClosed)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Serve: %v, want %v", err, net.ErrClosed)
		}
	})
	t.Run("context ended", func(t *testing.T) {
		t.Parallel()
		l := newLeaver(t, listen(t), nil, nil)
		l.block("/a")
		busy, idle := l.dial(), l.dial()
		busy.send(get)
		l.waitEntered()
		idle.send(post)
		idle.want(1, "POST", "/b")
		eventually(t, "one is idle", func() bool { return l.s.Idle() == 1 })
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		l.shutdown(ctx)
		r := l.gone(context.Canceled)
		l.release("/a")
		if r.Cut[handoffhttp.CutRequest] != 1 || r.Cut[handoffhttp.CutIdle] != 1 {
			t.Errorf("cut %v, want one request and one idle connection", r.Cut)
		}
	})
}

// TestClose cuts what Shutdown waits for, in the linger and in its delay.
func TestClose(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{0, time.Hour} {
		t.Run(delay.String(), func(t *testing.T) {
			t.Parallel()
			l := newLeaver(t, listen(t), &handoffhttp.Config{Delay: delay}, nil)
			l.block("/a")
			c := l.dial()
			c.send(get)
			l.waitEntered()
			go func() { l.shut <- l.s.Shutdown(context.Background()) }()
			if delay == 0 {
				l.await("RegisterOnShutdown's function", l.hooked)
			}
			if err := l.s.Close(); err != nil {
				t.Error(err)
			}
			r := l.gone(http.ErrServerClosed)
			l.release("/a")
			if _, err := c.receive("GET"); err == nil {
				t.Error("the request is answered after Close")
			}
			if r.Cut[handoffhttp.CutRequest] != 1 {
				t.Errorf("cut %v, want one request", r.Cut)
			}
		})
	}
}
