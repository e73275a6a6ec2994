package handoffhttp_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
)

// frame is one of HTTP/2.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func (c *client) sendFrame(f frame) {
	c.tb.Helper()
	b := []byte{byte(len(f.payload) >> 16), byte(len(f.payload) >> 8), byte(len(f.payload)), f.kind, f.flags}
	c.send(string(binary.BigEndian.AppendUint32(b, f.stream)) + string(f.payload))
}

func (c *client) frame() (frame, error) {
	var h [9]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: h[3], flags: h[4], stream: binary.BigEndian.Uint32(h[5:]), payload: make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))}
	_, err := io.ReadFull(c.r, f.payload)
	return f, err
}

const (
	frameData    = 0
	frameHeaders = 1
	frameSetting = 4
	framePing    = 6
	frameGoAway  = 7
)

// until reads frames up to one that ok likes, and answers settings.
func (c *client) until(what string, ok func(frame) bool) frame {
	c.tb.Helper()
	for {
		f, err := c.frame()
		if err != nil {
			c.tb.Fatalf("%s: %v", what, err)
		}
		if f.kind == frameSetting && f.flags == 0 {
			c.sendFrame(frame{kind: frameSetting, flags: 1})
		}
		if ok(f) {
			return f
		}
	}
}

// request2 asks for / on a stream.
func (c *client) request2(stream uint32) {
	c.tb.Helper()
	// :method GET, :path /, :scheme http of the static table, :authority h
	c.sendFrame(frame{kind: frameHeaders, flags: 0x1 | 0x4, stream: stream, payload: []byte{0x82, 0x84, 0x86, 0x41, 1, 'h'}})
}

func (c *client) answer2(stream uint32) {
	c.tb.Helper()
	c.until("response", func(f frame) bool { return f.stream == stream && f.flags&1 != 0 })
}

// answers2 waits for the responses of streams, in any order.
func (c *client) answers2(streams ...uint32) {
	c.tb.Helper()
	for len(streams) > 0 {
		f := c.until("response", func(f frame) bool { return f.flags&1 != 0 && slices.Contains(streams, f.stream) })
		streams = slices.DeleteFunc(streams, func(s uint32) bool { return s == f.stream })
	}
}

// unencryptedHTTP2 has a generation speak it.
func unencryptedHTTP2(g *generation) {
	g.srv.Protocols = new(http.Protocols)
	g.srv.Protocols.SetHTTP1(true)
	g.srv.Protocols.SetUnencryptedHTTP2(true)
}

// TestGoAway shows both phases: a stream that the client opens before it has
// answered the first is served, and the connection ends only when it is quiet.
func TestGoAway(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, unencryptedHTTP2)
	l.block("/")
	c := l.dial()
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	c.sendFrame(frame{kind: frameSetting})
	c.request2(1)
	l.waitEntered()
	g := l.replace()
	f := c.until("first GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	if last := binary.BigEndian.Uint32(f.payload); last != 1<<31-1 {
		t.Errorf("the first GOAWAY names stream %d as the last one, want all", last)
	}
	ping := c.until("PING", func(f frame) bool { return f.kind == framePing })
	c.request2(3) // it crosses GOAWAY
	l.release("/")
	c.answers2(1, 3)
	if g.s.Open() != 1 {
		t.Error("the connection has ended before the client has answered")
	}
	c.sendFrame(frame{kind: framePing, flags: 1, payload: ping.payload})
	c.request2(5) // chosen for a request before it knew
	c.answer2(5)
	f = c.until("second GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	if last := binary.BigEndian.Uint32(f.payload); last != 5 {
		t.Errorf("the second GOAWAY names stream %d as the last one, want 5", last)
	}
	if _, err := c.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("after it: %v, want EOF", err)
	}
	if r := g.gone(t); len(r.Cut) != 0 || r.Moved != 0 {
		t.Errorf("linger: %+v, want nothing moved or cut", r)
	}
}

// TestHTTP2Limit has a client that doesn't answer: it is cut at the limit.
func TestHTTP2Limit(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, unencryptedHTTP2)
	c := l.dial()
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	c.sendFrame(frame{kind: frameSetting})
	c.request2(1)
	c.answer2(1)
	g := l.replace()
	c.until("GOAWAY", func(f frame) bool { return f.kind == frameGoAway })
	c.request2(3)
	c.answer2(3)
	close(g.up.expired)
	r := g.gone(t)
	if n := r.Cut["http2"] + r.Cut["idle"]; n != 1 {
		t.Errorf("linger: %+v, want one cut", r)
	}
}

// TestHTTP1BesideHTTP2 moves HTTP/1 connections of a server that speaks both.
func TestHTTP1BesideHTTP2(t *testing.T) {
	t.Parallel()
	l := newLine(t, nil, unencryptedHTTP2)
	c, fresh := l.dial(), l.dial()
	c.send(post + get[:2])
	c.want(1, "POST", "/b")
	eventually(t, "both are accepted", func() bool { return l.now.s.Open() == 2 })
	if r := l.upgrade(); r.Moved != 2 {
		t.Errorf("linger: %+v, want two moved", r)
	}
	c.send(get[2:])
	c.want(2, "GET", "/a")
	fresh.send(post)
	fresh.want(2, "POST", "/b")
}
