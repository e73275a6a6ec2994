package load_test

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// TestFailures has each thing go wrong that can, and the clients count it, in
// its class.
func TestFailures(t *testing.T) {
	t.Parallel()
	say := func(text string) func(int, net.Conn) {
		return func(_ int, c net.Conn) {
			_, _ = c.Write([]byte(text))
			// Until the client is gone: unread data would make a reset of the end.
			for buf := make([]byte, 512); ; {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}
	}
	respond := func(text string) func(int, net.Conn) {
		return func(n int, c net.Conn) {
			_, _ = c.Read(make([]byte, 512))
			say(text)(n, c)
		}
	}
	greet := "baton v1 1 1\n"
	closes := func(_ int, c net.Conn) {
		_, _ = c.Write([]byte(greet))
		_, _ = c.Read(make([]byte, 512))
	}
	for _, c := range []struct {
		name   string
		kind   load.Kind
		want   load.Class
		serve  func(int, net.Conn) // nil: no listener
		target func(*load.Target)
	}{
		{name: "no listener", kind: load.Once, want: load.Refused},
		{name: "no listener, http", kind: load.HTTP, want: load.Refused},
		{name: "closed at once", kind: load.Once, want: load.EOF, serve: func(int, net.Conn) {}},
		{name: "closed at once, http", kind: load.HTTP, want: load.EOF, serve: func(_ int, c net.Conn) { _, _ = c.Read(make([]byte, 512)) }},
		{name: "closed before the answer", kind: load.Once, want: load.EOF, serve: closes},
		{name: "closed before the answer, open", kind: load.Keep, want: load.EOF, serve: closes},
		{name: "reset", kind: load.Once, want: load.Reset, serve: func(_ int, c net.Conn) {
			_, _ = c.Write([]byte(greet))
			_, _ = c.Read(make([]byte, 512))
			_ = c.(*net.TCPConn).SetLinger(0)
		}},
		{name: "silent", kind: load.Once, want: load.Timeout, serve: say("")},
		{name: "silent after the greeting", kind: load.Marked, want: load.Timeout, serve: say(greet)},
		{name: "silent, http", kind: load.HTTP, want: load.Timeout, serve: say("")},
		{name: "no greeting", kind: load.Once, want: load.Wrong, serve: say("SSH-2.0-OpenSSH\n")},
		{name: "other token", kind: load.Once, want: load.Wrong, serve: say(greet + "v1 nonsense last\n")},
		{name: "other version", kind: load.Once, want: load.Wrong, serve: say(greet + "v2 q1 last\n")},
		{name: "not closed", kind: load.Once, want: load.Timeout, serve: say(greet + "v1 q1 last\n")},
		{name: "says more", kind: load.Once, want: load.Wrong, serve: say(greet + "v1 q1 more\n")},
		{name: "ended before bye", kind: load.Keep, want: load.Wrong, serve: say(greet + "v1 q1 last\n")},
		{name: "talks on", kind: load.Once, want: load.Wrong, serve: say(greet + "v1 q1 last\nv1 q2 last\n")},
		{name: "status", kind: load.HTTP, want: load.Wrong, serve: respond("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")},
		{name: "wrong body", kind: load.HTTP, want: load.Wrong, serve: respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")},
		{name: "no listener, post", kind: load.Post, want: load.Refused},
		{name: "closed at once, post", kind: load.Post, want: load.EOF, serve: func(_ int, c net.Conn) { _, _ = c.Read(make([]byte, 512)) }},
		{name: "silent, post", kind: load.Post, want: load.Timeout, serve: say("")},
		{name: "half a body", kind: load.HTTP, want: load.EOF, serve: func(_ int, c net.Conn) {
			_, _ = c.Read(make([]byte, 512))
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nv1 "))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t, "tcp")
			if c.serve == nil {
				_ = ln.Close()
			} else {
				serve(t, ln, c.serve)
			}
			target := load.Target{Name: "x", Kind: c.kind, Network: "tcp", Address: ln.Addr().String(), Workers: 1}
			cfg := load.Config{Targets: []load.Target{target}, Pause: -1}
			if c.want == load.Timeout {
				cfg.Timeout = 50 * time.Millisecond
			}
			var mu sync.Mutex
			var told []load.Failure
			cfg.Failed = func(f load.Failure) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, f)
			}
			s := runUntil(t, cfg, func(s load.Stats) bool { return s.Failed > 0 })
			if uint64(len(told)) != s.Failed {
				t.Errorf("told of %d failures, want %d", len(told), s.Failed)
			}
			for _, f := range told {
				if _, err := netip.ParseAddrPort(f.Local); (err == nil) != (c.serve != nil) {
					t.Errorf("the client's address is %q, want one: %t", f.Local, c.serve != nil)
				}
			}
			if s.Failed != s.Connections || len(s.Samples) == 0 {
				t.Errorf("%d failed of %d, samples %v, want all", s.Failed, s.Connections, s.Samples)
			}
			// The first one: only it asks q1.
			if len(s.Samples) > 0 && s.Samples[0].Class != c.want {
				t.Errorf("%+v, want class %s", s.Samples[0], c.want)
			}
		})
	}
}

// TestLostDatagram has a server that answers late, once: a failure, and the
// late answer does not meet the next question.
func TestLostDatagram(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 512)
		var late []byte
		for n := 0; ; n++ {
			k, addr, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			answer := append([]byte("v1 "), buf[:k]...)
			if n == 3 {
				late = answer
				continue
			}
			if late != nil {
				_, _ = pc.WriteTo(late, addr) // the wrong one first
				late = nil
			}
			_, _ = pc.WriteTo(answer, addr)
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		wg.Wait()
	})
	s := runUntil(t, load.Config{
		Targets: []load.Target{{Name: "udp", Kind: load.Datagram, Network: "udp", Address: pc.LocalAddr().String(), Workers: 1}},
		Timeout: 200 * time.Millisecond,
	}, func(s load.Stats) bool { return s.Failed >= 2 && s.Connections > 20 })
	var classes []string
	for _, f := range s.Samples[:2] {
		classes = append(classes, string(f.Class))
	}
	if got := strings.Join(classes, " "); got != "timeout wrong" {
		t.Errorf("failures: %s, want timeout wrong", got)
	}
}
