package servers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/seed-11c92bf9/baton/handoff"
)

func serveFast(ctx context.Context, _ settings, up *handoff.Upgrader, ln *handoff.Listener) error {
	var lingering atomic.Bool
	gen := generation(up)
	srv := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) {
		if lingering.Load() {
			c.SetConnectionClose()
		}
		c.Response.Header.Set("Gen", gen)
		_, _ = fmt.Fprintf(c, "%d", len(c.PostBody()))
	}}
	served := make(chan error, 1)
	lis := ln
	go func() { served <- srv.Serve(lis) }()
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	lingering.Store(true)
	<-served
	return up.Shutdown(ctx)
}

// TestFastHTTP sends keep-alive POSTs while the server is replaced.
func TestFastHTTP(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := start(t, "fasthttp", settings{Mode: mode})
		l := post(s.addr, 16)
		for range 5 {
			if r := s.upgrade(); r.Cut != 0 {
				t.Errorf("%d connections cut: %v", r.Cut, r.CutBy)
			}
		}
		ok, failed := l.end()
		if len(failed) > 0 || ok == 0 {
			t.Errorf("%d requests, %d failed: %v", ok, len(failed), failed)
		}
		t.Logf("%d requests", ok)
	})
}

// A load sends POSTs, none of them twice.
type load struct {
	stop   chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	ok     int
	failed []error
}

func post(addr string, clients int) *load {
	l := &load{stop: make(chan struct{})}
	for range clients {
		l.wg.Go(func() { l.client(addr) })
	}
	return l
}

func (l *load) client(addr string) {
	var nc net.Conn
	var in *bufio.Reader
	for !closed(l.stop) {
		err := func() error {
			if nc == nil {
				var err error
				if nc, err = net.Dial("tcp", addr); err != nil {
					nc = nil
					return err
				}
				in = bufio.NewReader(nc)
			}
			_ = nc.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(nc, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"); err != nil {
				return err
			}
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(res.Body)
			if err == nil && string(b) != "5" {
				err = fmt.Errorf("%s: %q", res.Status, b)
			}
			if res.Close {
				_ = nc.Close()
				nc = nil
			}
			return err
		}()
		l.mu.Lock()
		if err != nil {
			l.failed = append(l.failed, err)
		} else {
			l.ok++
		}
		l.mu.Unlock()
		if err != nil && nc != nil {
			_ = nc.Close()
			nc = nil
		}
	}
	if nc != nil {
		_ = nc.Close()
	}
}

func (l *load) end() (int, []error) {
	close(l.stop)
	l.wg.Wait()
	return l.ok, l.failed
}
