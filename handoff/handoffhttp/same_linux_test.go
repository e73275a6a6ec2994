package handoffhttp_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A script is what one client sends to a server with certain settings.
type script struct {
	name string
	set  func(*http.Server) // nil: nothing
	send string
	shut bool // the client half-closes then
}

// limit is a timeout that passes in a test, long enough for all that must not
// run into it.
const limit = time.Second

// scripts end with the end of the connection.
var scripts = []script{
	{name: "header that does not end", set: func(s *http.Server) { s.ReadHeaderTimeout = limit }, send: "GET / HTTP/1.1\r\nHost: h"},
	{name: "header that does not end, ReadTimeout", set: func(s *http.Server) { s.ReadTimeout, s.IdleTimeout = limit, time.Hour }, send: "GET / HTTP/1.1\r\nHost: h"},
	{name: "body that does not end", set: func(s *http.Server) { s.ReadTimeout, s.IdleTimeout = limit, time.Hour }, send: "POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe"},
	{name: "response that takes too long", set: func(s *http.Server) { s.WriteTimeout = limit }, send: "GET /late HTTP/1.1\r\nHost: h\r\n\r\n"},
	{name: "idle", set: func(s *http.Server) { s.IdleTimeout = limit }, send: post},
	{name: "idle, in the begin of a request", set: func(s *http.Server) { s.IdleTimeout = limit }, send: post + "GE"},
	{name: "idle, ReadTimeout", set: func(s *http.Server) { s.ReadTimeout = limit }, send: post},
	{name: "header too long", set: func(s *http.Server) { s.MaxHeaderBytes = 1 }, send: "GET / HTTP/1.1\r\nHost: h\r\nLong: " + strings.Repeat("x", 20000) + "\r\n\r\n"},
	{name: "garbage", send: "garbage\r\n\r\n"},
	{name: "short garbage", send: "\x00\x01\r\n\r\n"},
	{name: "half a request", send: "GET / HT", shut: true},
	{name: "two bytes", send: "GE", shut: true},
	{name: "half a body", send: "POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe", shut: true},
	{name: "half a chunk", send: "POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", shut: true},
	{name: "unknown coding", send: "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n"},
	{name: "two lengths", send: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
	{name: "no host", send: "GET / HTTP/1.1\r\n\r\n"},
	{name: "unknown expectation", send: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: x\r\n\r\nhello"},
	{name: "continue", send: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + get, shut: true},
	{name: "HTTP/1.0", send: "GET / HTTP/1.0\r\n\r\n"},
	{name: "HTTP/1.0, kept alive", send: old + old + "GET / HTTP/1.0\r\n\r\n"},
	{name: "close", send: "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + get},
	{name: "kinds", send: get + post + chunked + trailer + old + head + unread + empty, shut: true},
	{name: "line ends after POST", send: post + "\r\n\r\n" + get, shut: true},
	{name: "line ends after GET", send: get + "\r\n" + get, shut: true},
	{name: "options of the server", send: "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", shut: true},
	{name: "options, by the handler", set: func(s *http.Server) { s.DisableGeneralOptionsHandler = true }, send: "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", shut: true},
	{name: "panic", send: "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n"},
	{name: "body too long for the handler", send: "POST /max HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 100) + get, shut: true},
	{name: "response too short", send: "GET /short HTTP/1.1\r\nHost: h\r\n\r\n" + get, shut: true},
	{name: "response and body at once", send: "POST /duplex HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + get, shut: true},
	{name: "hijacked", send: "GET /hijack HTTP/1.1\r\nHost: h\r\n\r\nline", shut: true},
	{name: "gone while served", send: "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n", shut: true},
	{name: "deadline of the handler's", send: "POST /deadline HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe"},
	{name: "keep-alives off", send: "GET /off HTTP/1.1\r\nHost: h\r\n\r\n" + get},
	{name: "early hints", send: "GET /hints HTTP/1.1\r\nHost: h\r\n\r\n", shut: true},
}

// serveScript answers scripts.
func serveScript() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		switch r.URL.Path {
		case "/late":
			<-time.After(limit + limit/2)
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/unread":
			return
		case "/max":
			r.Body = http.MaxBytesReader(w, r.Body, 10)
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
		case "/short":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "short")
			return
		case "/duplex":
			if err := errors.Join(rc.EnableFullDuplex(), rc.Flush()); err != nil {
				fmt.Fprintln(w, err)
			}
		case "/hijack":
			nc, rw, err := rc.Hijack()
			if err != nil {
				fmt.Fprintln(w, err)
				return
			}
			b, err := io.ReadAll(rw)
			fmt.Fprintf(nc, "%q %v\n", b, err)
			_ = nc.Close()
			return
		case "/wait":
			<-r.Context().Done()
			fmt.Fprintln(w, r.Context().Err())
			return
		case "/deadline":
			if err := rc.SetReadDeadline(time.Now().Add(limit / 2)); err != nil {
				fmt.Fprintln(w, err)
			}
		case "/off":
			r.Context().Value(http.ServerContextKey).(*http.Server).SetKeepAlivesEnabled(false)
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %v %v %v\n", r.Method, r.RequestURI, r.Proto, b, err != nil, r.Trailer, r.Close)
	}
}

// TestSameAsPlain shows that clients can't tell a Server from a plain
// http.Server, timeouts, errors and what handlers may do to a connection
// included: on a connection that stays and on one that has moved, after a first
// request or before it.
func TestSameAsPlain(t *testing.T) {
	t.Parallel()
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			prepare := func(srv *http.Server) {
				srv.Handler = serveScript()
				srv.ErrorLog = log.New(io.Discard, "", 0)
				if s.set != nil {
					s.set(srv)
				}
			}
			srv := &http.Server{}
			prepare(srv)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				_ = srv.Serve(ln)
			}()
			defer func() {
				_ = srv.Close()
				<-served
			}()
			for _, fresh := range []bool{false, true} {
				plain := (&line{tb: t, addr: ln.Addr().String()}).dial().play(s, fresh, nil)
				if plain == "" && s.shut && !fresh && s.name != "two bytes" && s.name != "half a request" {
					t.Error("a plain http.Server says nothing: the script shows nothing")
				}
				for _, moved := range []bool{false, true} {
					l := newLine(t, nil, func(g *generation) { prepare(g.srv) })
					var upgrade func()
					if moved {
						upgrade = func() {
							if r := l.upgrade(); r.Moved != 1 && !fresh && s.set == nil { // or a timeout may pass meanwhile
								t.Errorf("linger: %+v, want one moved", r)
							}
						}
					}
					if diff := cmp.Diff(plain, l.dial().play(s, fresh, upgrade)); diff != "" {
						t.Errorf("fresh %v, moved %v: what the client reads differs from what a plain http.Server says (-want +got):\n%s", fresh, moved, diff)
					}
				}
			}
		})
	}
}

var date = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// play returns all that a server says, after a first request, unless fresh, and
// then upgrade.
func (c *client) play(s script, fresh bool, upgrade func()) string {
	c.tb.Helper()
	if !fresh {
		c.send(get)
		res, err := http.ReadResponse(c.r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if err != nil {
			c.tb.Fatalf("first request: %v", err)
		}
	}
	if upgrade != nil {
		upgrade()
	}
	_, _ = io.WriteString(c.nc, s.send) // the server may have closed by then
	if s.shut {
		_ = c.CloseWrite()
	}
	_ = c.nc.SetDeadline(time.Now().Add(patience)) // Read tells
	b, err := io.ReadAll(bufio.NewReader(c.r))
	if isTimeout(err) {
		c.tb.Errorf("the connection doesn't end; read %q", b)
	}
	return date.ReplaceAllString(string(b), "")
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
