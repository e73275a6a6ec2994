package handoffhttp_test

import (
	"fmt"
	"strings"
	"testing"
)

const (
	get     = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	post    = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	chunked = "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	trailer = "POST /d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n"
	old     = "GET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
	head    = "HEAD /f HTTP/1.1\r\nHost: h\r\n\r\n"
	unread  = "POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	empty   = "POST /g HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
)

// kinds are requests with what they ask for.
var kinds = []struct{ name, text, method, path string }{
	{"get", get, "GET", "/a"},
	{"post", post, "POST", "/b"},
	{"chunked", chunked, "POST", "/c"},
	{"trailers", trailer, "POST", "/d"},
	{"http 1.0", old, "GET", "/e"},
	{"head", head, "HEAD", "/f"},
	{"body not read", unread, "POST", "/unread"},
	{"body of length 0", empty, "POST", "/g"},
}

// TestIdleMoves moves a connection after each kind of request, twice, and has
// the successors serve each kind of request on it.
func TestIdleMoves(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, nil, nil)
			c := l.dial()
			for gen := 1; gen <= 3; gen++ {
				for _, k2 := range append(kinds, k) {
					c.send(k2.text)
					if res := c.want(gen, k2.method, k2.path); res.close {
						t.Fatalf("generation %d asks to close", gen)
					}
				}
				if r := l.upgrade(); r.Moved != 1 || r.Open != 1 || r.Stayed != 0 || len(r.Cut) != 0 {
					t.Fatalf("linger of generation %d: %+v, want one connection moved", gen, r)
				}
			}
		})
	}
}

// TestBegunMoves moves connections of which net/http has read the first bytes of
// the next request: with the end of the one before, after it, or while that was
// served, in its background reader.
func TestBegunMoves(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		for n := range 4 {
			begun, rest := get[:n], get[n:]
			t.Run(fmt.Sprintf("%s with it %d", k.name, n), func(t *testing.T) {
				t.Parallel()
				l := newLine(t, nil, nil)
				c := l.dial()
				c.send(k.text + begun)
				c.want(1, k.method, k.path)
				moveBegun(t, l, c, rest)
			})
			t.Run(fmt.Sprintf("%s after it %d", k.name, n), func(t *testing.T) {
				t.Parallel()
				l := newLine(t, nil, nil)
				c := l.dial()
				c.send(k.text)
				c.want(1, k.method, k.path)
				for i := range begun { // each byte a Read of its own, most likely
					c.send(begun[i : i+1])
				}
				moveBegun(t, l, c, rest)
			})
			t.Run(fmt.Sprintf("%s while served %d", k.name, n), func(t *testing.T) {
				t.Parallel()
				l := newLine(t, nil, nil)
				l.block(k.path)
				c := l.dial()
				c.send(k.text)
				l.waitEntered()
				c.send(begun)
				l.release(k.path)
				c.want(1, k.method, k.path)
				moveBegun(t, l, c, rest)
			})
		}
	}
}

// moveBegun upgrades and sends the rest of a request.
func moveBegun(t *testing.T, l *line, c *client, rest string) {
	t.Helper()
	if r := l.upgrade(); r.Moved != 1 || r.Stayed != 0 {
		t.Fatalf("linger: %+v, want one connection moved", r)
	}
	// Once more, in the middle of the bytes that were begun.
	if r := l.upgrade(); r.Moved != 1 || r.Stayed != 0 {
		t.Fatalf("second linger: %+v, want one connection moved", r)
	}
	c.send(rest)
	c.want(3, "GET", "/a")
}

// TestLineEndsMove shows that the line ends that old clients send after a POST
// are ignored in the successor, as net/http does.
func TestLineEndsMove(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"\r\n", "\n", "\r", "\r\n\r\n"} {
		for n := range len(s) + 1 {
			l := newLine(t, nil, nil)
			c := l.dial()
			c.send(post + s[:min(n, 3)])
			c.want(1, "POST", "/b")
			l.upgrade()
			c.send(s[min(n, 3):])
			l.upgrade()
			c.send(get)
			c.want(3, "GET", "/a")
		}
	}
}

// TestNewMoves moves a connection that was silent so far.
func TestNewMoves(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, nil)
	c := l.dial()
	eventually(t, "connection is accepted", func() bool { return l.now.s.Open() == 1 })
	for range 3 {
		if r := l.upgrade(); r.Moved != 1 || r.Stayed != 0 {
			t.Fatalf("linger: %+v, want one connection moved", r)
		}
	}
	c.send(post)
	c.want(4, "POST", "/b")
}

// TestPartStays has a part of a request with the predecessor when the upgrade
// comes: it answers that request, and then the connection moves.
func TestPartStays(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"", get, post} {
		for _, k := range kinds {
			end := len(k.text)
			for _, cut := range []int{4, len("GET /a HTTP/1.1\r\n"), strings.Index(k.text, "\r\n\r\n") + 2, strings.Index(k.text, "\r\n\r\n") + 4, end - 2, end - 1} {
				if cut >= end {
					continue
				}
				t.Run(fmt.Sprintf("%.4s%s %d", first, k.name, cut), func(t *testing.T) {
					t.Parallel()
					l := newLine(t, nil, nil)
					c := l.dial()
					if first != "" { // part of what follows with it
						c.send(first + k.text[:cut])
						m, p, _ := strings.Cut(first, " ")
						p, _, _ = strings.Cut(p, " ")
						c.want(1, m, p)
					} else {
						c.send(k.text[:cut])
						eventually(t, "bytes are read", func() bool { return l.now.s.Begun() == 1 })
					}
					g := l.replace()
					c.send(k.text[cut:])
					if res := c.want(1, k.method, k.path); res.close {
						t.Error("the response asks to close, want the connection to move")
					}
					if r := g.gone(t); r.Moved != 1 {
						t.Fatalf("linger: %+v, want one connection moved", r)
					}
					c.send(get)
					c.want(2, "GET", "/a")
				})
			}
		}
	}
}
