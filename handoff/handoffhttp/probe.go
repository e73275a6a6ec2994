package handoffhttp

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// facts are properties of this build's net/http.
type facts struct {
	buffer int // size of the buffer that it reads into
}

// probe finds the facts that [conn] stands on by watching a server of net/http
// at work, on connections in memory. If one of them doesn't hold, it says which:
// then no connection may move.
func probe() (facts, error) {
	p := &prober{conns: make(chan net.Conn)}
	srv := &http.Server{
		Handler: p,
		ConnState: func(nc net.Conn, st http.ConnState) {
			nc.(*probeConn).state(st)
		},
		ErrorLog: log.New(io.Discard, "", 0),
		// Timeouts that differ, so that all deadlines are set.
		ReadHeaderTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(p) }) // ends with conns
	defer wg.Wait()
	defer close(p.conns)
	return p.run()
}

const (
	probeRequest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	probeUpload  = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
	probeChunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: u\r\n\r\n"
)

func (p *prober) run() (facts, error) {
	c := p.serve()
	if c.wrote != 0 || c.closed != 1 {
		return facts{}, fmt.Errorf("handoffhttp: net/http answers a new connection that ends with %d bytes, and closes it %d times", c.wrote, c.closed)
	}
	size := 0
	for _, request := range []string{probeRequest, probeUpload, probeChunked} {
		for begun := range maxBegun + 1 {
			c := p.serve(request + "GET /"[:begun])
			if c.err() != nil {
				return facts{}, c.err()
			}
			if size == 0 {
				size = c.idle.room
			}
			if c.idle.deadlines != 1 || c.idle.room != size-begun || size < 16 {
				return facts{}, fmt.Errorf("handoffhttp: net/http waits for a next request, of which it has %d bytes, with room for %d of %d and %d deadlines", begun, c.idle.room, size, c.idle.deadlines)
			}
		}
	}
	// The byte that its background reader has read while a request was served.
	if c = p.serve(probeRequest, "G"); c.err() != nil || !c.background || c.idle.room != size-1 || c.idle.deadlines != 1 {
		return facts{}, fmt.Errorf("handoffhttp: net/http waits for a next request, of which its background reader has one byte, with room for %d of %d and %d deadlines: %w", c.idle.room, size, c.idle.deadlines, c.err())
	}
	// A part of a header that it has used already.
	for _, part := range []string{"GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a", "GET /"} {
		if c = p.serve(probeRequest + part); c.idle.deadlines < 2 {
			return facts{}, errors.New("handoffhttp: net/http waits for the rest of a header as it waits for its begin")
		}
	}
	return facts{buffer: size}, nil
}

// A prober is listener and handler of the server that is watched.
type prober struct{ conns chan net.Conn }

// serve serves a connection that sends chunks, each for one Read, and then ends.
func (p *prober) serve(chunks ...string) *probeConn {
	c := &probeConn{chunks: chunks, done: make(chan struct{}), read: make(chan struct{})}
	p.conns <- c
	<-c.done
	return c
}

func (p *prober) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p *prober) Close() error   { return nil }
func (p *prober) Addr() net.Addr { return probeAddr{} }

func (p *prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	c := r.Context().Value(http.LocalAddrContextKey).(probeAddr).c
	if c.more() {
		<-c.read // by the background reader
	}
	_, _ = io.WriteString(w, "ok")
}

// probeAddr is the local address of a probeConn: net/http puts it into the
// context of a request.
type probeAddr struct{ c *probeConn }

func (probeAddr) Network() string { return "probe" }
func (probeAddr) String() string  { return "probe" }

// probeConn notes how net/http uses it.
type probeConn struct {
	done chan struct{} // closed with http.StateClosed
	read chan struct{} // closed when all chunks were read

	mu         sync.Mutex
	chunks     []string
	idleNow    bool
	deadlines  int
	idle       struct{ room, deadlines int } // the first Read after StateIdle that finds nothing
	seen       bool
	background bool
	wrote      int // since it has told of its end
	closed     int
	ended      bool
}

// err reports what must not happen at the end.
func (c *probeConn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen || c.wrote > 0 || c.closed != 1 {
		return fmt.Errorf("handoffhttp: net/http writes %d bytes to a connection that ended while idle, and closes it %d times", c.wrote, c.closed)
	}
	return nil
}

func (c *probeConn) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.chunks) > 0
}

func (c *probeConn) state(st http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch st {
	case http.StateIdle:
		c.idleNow, c.deadlines = true, 0
	case http.StateActive:
		c.idleNow = false
	case http.StateClosed:
		close(c.done)
	}
}

func (c *probeConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.chunks) > 0 {
		n := copy(p, c.chunks[0])
		if c.chunks[0] = c.chunks[0][n:]; c.chunks[0] == "" {
			c.chunks = c.chunks[1:]
			if len(c.chunks) == 0 && len(p) == 1 {
				c.background = true
				close(c.read)
			}
		}
		return n, nil
	}
	if c.idleNow && !c.seen {
		c.seen = true
		c.idle.room, c.idle.deadlines = len(p), c.deadlines
	}
	if len(p) == 1 && !c.idleNow {
		return 0, errProbeTimeout // the background reader, called back
	}
	c.ended = true
	return 0, io.EOF
}

func (c *probeConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended && !strings.HasPrefix(string(p), "HTTP/1.1 200") {
		c.wrote += len(p)
	}
	return len(p), nil
}

func (c *probeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

func (c *probeConn) SetReadDeadline(time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadlines++
	return nil
}

func (c *probeConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *probeConn) SetWriteDeadline(time.Time) error { return nil }
func (c *probeConn) LocalAddr() net.Addr              { return probeAddr{c} }
func (c *probeConn) RemoteAddr() net.Addr             { return probeAddr{c} }

// errProbeTimeout is what a deadline makes of a Read.
var errProbeTimeout = &net.OpError{Op: "read", Net: "probe", Err: probeTimeout{}}

type probeTimeout struct{}

func (probeTimeout) Error() string   { return "i/o timeout" }
func (probeTimeout) Timeout() bool   { return true }
func (probeTimeout) Temporary() bool { return true }
