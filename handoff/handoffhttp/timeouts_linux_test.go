package handoffhttp_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// moved gives the newest generation a connection as a predecessor would, and
// returns the client's end.
func (l *line) moved(state []byte) *client {
	l.tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.tb.Fatal(err)
	}
	defer ln.Close()
	addr := l.addr
	l.addr = ln.Addr().String()
	c := l.dial()
	l.addr = addr
	nc, err := ln.Accept()
	if err != nil {
		l.tb.Fatal(err)
	}
	for _, box := range l.now.up.inbox {
		box <- handoff.MovedConn{Conn: nc, State: state}
	}
	return c
}

// TestTimeoutsMove shows that a connection that has moved is under the idle
// timeout that had begun in the predecessor, and not under the one for headers.
func TestTimeoutsMove(t *testing.T) {
	t.Parallel()
	limits := func(g *generation) {
		g.srv.IdleTimeout, g.srv.ReadHeaderTimeout = time.Hour, time.Minute
		g.srv.ReadTimeout = time.Minute
	}
	for _, tt := range []struct {
		name   string
		idle   bool
		silent time.Duration
		open   bool
	}{
		{"idle, past the time for headers", true, 2 * time.Minute, true},
		{"idle, past its time", true, 2 * time.Hour, false},
		{"new", false, 30 * time.Second, true},
		{"new, past the time for headers", false, 2 * time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, nil, limits)
			c := l.moved(handoffState(tt.idle, tt.silent))
			if !tt.open {
				c.wantEOF()
				return
			}
			l.upgrade() // the time goes with it
			c.send(post)
			c.want(2, "POST", "/b")
		})
	}
}

// TestReadTimeoutMoves shows that the time a connection was silent doesn't count
// as time in which a request was read: the deadline of a body begins with the
// request.
func TestReadTimeoutMoves(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, func(g *generation) {
		g.srv.ReadTimeout, g.srv.IdleTimeout = 10*time.Second, time.Hour
	})
	c := l.moved(handoffState(true, time.Minute))
	c.send(post)
	c.want(1, "POST", "/b")
}

// TestTimeoutsFire has a timeout fire while connections move, over and over:
// each ends, and none is left.
func TestTimeoutsFire(t *testing.T) {
	t.Parallel()
	const soon = 3 * time.Millisecond
	for _, tt := range []struct {
		name   string
		limits func(*http.Server)
		sends  string
		gets   bool // a response before the end
	}{
		{"idle", func(s *http.Server) { s.IdleTimeout = soon }, get, true},
		{"idle, by ReadTimeout", func(s *http.Server) { s.ReadTimeout = soon }, get, true},
		{"silent, ReadHeaderTimeout", func(s *http.Server) { s.ReadHeaderTimeout = soon }, "", false},
		{"silent, ReadTimeout", func(s *http.Server) { s.ReadTimeout = soon }, "", false},
		{"part of a header", func(s *http.Server) { s.ReadHeaderTimeout = soon }, get[:len(get)-3], false},
		{"part of a body", func(s *http.Server) { s.ReadTimeout = soon }, post[:len(post)-1], false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, nil, func(g *generation) { tt.limits(g.srv) })
			for i := range 20 {
				var cs []*client
				for range 10 {
					c := l.dial()
					_, _ = io.WriteString(c.nc, tt.sends) // the server may have hung up
					cs = append(cs, c)
				}
				if tt.gets {
					for _, c := range cs {
						// On a busy machine the time can be over before the request has come.
						if _, err := c.receive("GET"); err != nil && tt.name == "idle" {
							t.Fatalf("round %d: %v", i, err)
						}
					}
				}
				if r := l.upgrade(); r.Stayed != 0 || len(r.Cut) != 0 {
					t.Fatalf("round %d: linger: %+v, want none cut", i, r)
				}
				for _, c := range cs {
					_ = c.nc.SetDeadline(time.Now().Add(patience)) // the copy tells
					if _, err := io.Copy(io.Discard, c.r); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatalf("round %d: a connection is left open", i)
					}
				}
			}
		})
	}
}

// TestNoTimeoutMoves shows that a server without a timeout has none after a
// move, and that the deadline by which a Read is called back is gone.
func TestNoTimeoutMoves(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	c := l.moved(handoffState(true, 1000*time.Hour))
	l.upgrade()
	c.send(post)
	c.want(2, "POST", "/b")
}

// TestMalformedState passes on a connection with a malformed state. The connection is
// closed, and the server serves on.
func TestMalformedState(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	for _, state := range []string{"", "\x01", "\x01\x00", "\x02\x00\x00", "\x01\x05\x00", "\x01\x00\xff", "\x01\x00\x00GET /", "\x01\x00" + strings.Repeat("\xff", 11)} {
		c := l.moved([]byte(state))
		c.wantEOF()
	}
	c := l.dial()
	c.send(get)
	c.want(1, "GET", "/a")
}

// TestHalfClose has clients that have said all and wait for an answer.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	shut := func(c *client) {
		t.Helper()
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("while served", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, nil, nil)
		l.block("/a")
		c := l.dial()
		c.send(get)
		l.waitEntered()
		shut(c)
		g := l.replace()
		l.release("/a")
		c.want(1, "GET", "/a")
		c.wantEOF()
		g.gone(t)
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, nil, nil)
		c := l.dial()
		c.send(get)
		c.want(1, "GET", "/a")
		shut(c) // the upgrade races the end
		l.upgrade()
		c.wantEOF()
	})
	t.Run("request on its way", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, nil, nil)
		for range 20 {
			c := l.dial()
			c.send(get)
			gen := l.now.n
			c.want(gen, "GET", "/a")
			g := l.replace()
			c.send(post) // before, while or after it moves
			shut(c)
			if res, err := c.receive("POST"); err != nil || !strings.HasPrefix(res.body, "POST /b 5:") {
				t.Fatalf("response %+v, %v, want one", res, err)
			}
			c.wantEOF()
			g.gone(t)
		}
	})
}

// TestExpectContinue upgrades between the header of a request and its body.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	c := l.dial()
	for gen := 1; gen <= 3; gen++ {
		c.send("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if line, err := c.r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("read %q, %v, want 100", line, err)
		}
		_, _ = c.r.ReadString('\n')
		g := l.replace()
		c.send("hello")
		c.want(gen, "POST", "/b")
		if r := g.gone(t); r.Moved != 1 {
			t.Fatalf("linger: %+v, want one moved", r)
		}
	}
	// A handler that doesn't want the body: net/http closes, as without us.
	c.send("POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if res := c.want(4, "POST", "/unread"); !res.close {
		t.Error("the connection is reused without the body")
	}
	if err := c.CloseWrite(); err != nil { // net/http waits for the body, or for this
		t.Fatal(err)
	}
	c.wantEOF()
}

// TestLargeBodyNotRead has a body that the handler doesn't read and net/http
// doesn't want to skip: it closes the connection, in the predecessor.
func TestLargeBodyNotRead(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	l.block("/unread")
	c := l.dial()
	c.send("POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat("x", 1000))
	l.waitEntered()
	g := l.replace()
	l.release("/unread")
	if res := c.want(1, "POST", "/unread"); !res.close {
		t.Error("the connection is reused in the middle of a body")
	}
	if r := g.gone(t); r.Moved != 0 || len(r.Cut) != 0 {
		t.Errorf("linger: %+v, want none moved", r)
	}
}

// TestPipeline sends several requests at once: those that the predecessor has
// read it answers, in order.
func TestPipeline(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	l.block("/a")
	c := l.dial()
	c.send(get + post + chunked + trailer + head + get[:2])
	l.waitEntered()
	g := l.replace()
	l.release("/a")
	c.want(1, "GET", "/a")
	c.want(1, "POST", "/b")
	c.want(1, "POST", "/c")
	c.want(1, "POST", "/d")
	c.want(1, "HEAD", "/f")
	if r := g.gone(t); r.Moved != 1 {
		t.Fatalf("linger: %+v, want one moved", r)
	}
	c.send(get[2:])
	c.want(2, "GET", "/a")
}

// TestUnixConns moves connections of a unix socket.
func TestUnixConns(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	fds, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := fdx.Conn(fds[0], "client")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := fdx.Conn(fds[1], "server")
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range l.now.up.inbox {
		box <- handoff.MovedConn{Conn: theirs, State: handoffState(true, 0)}
	}
	for gen := 1; gen <= 3; gen++ {
		req, _ := http.NewRequest("POST", "http://h/b", strings.NewReader("hello"))
		if err := req.Write(ours); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, ours)
		c.want(gen, "POST", "/b")
		if r := l.upgrade(); r.Moved != 1 {
			t.Fatalf("linger: %+v, want one moved", r)
		}
	}
}
