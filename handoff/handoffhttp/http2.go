package handoffhttp

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// An HTTP/2 connection can't move: net/http has its state. It ends in the two phases of
// RFC 9113 section 6.8: first a GOAWAY that leaves room for all streams, and a PING
// whose answer shows that the client knows; then a GOAWAY with the last stream, and the
// end of the connection when no stream is open. net/http's server implements the second
// phase only, after which it ignores streams that were on their way. So http2Conn sends
// the first phase between two of net/http's frames, which it finds by their headers.
const (
	http2FrameHeader = 9
	http2Headers     = 0x1
	http2Ping        = 0x6
	http2GoAway      = 0x7
	http2Ack         = 0x1
	http2Preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	// http2Unencrypted is the key in TLSNextProto under which net/http serves
	// HTTP/2 on any net.Conn that has had its preface (since Go 1.24).
	http2Unencrypted = "unencrypted_http2"

	// http2Grace is how long no stream must be open, or come, after the client
	// has acknowledged GOAWAY. A client may have chosen this connection for a
	// request right before.
	http2Grace = time.Second
	// http2PrefaceTimeout is net/http's.
	http2PrefaceTimeout = 10 * time.Second
)

// http2PingData marks our PING. net/http ignores the answer to a PING that it
// has not sent.
var http2PingData = [8]byte{'b', 'a', 't', 'o', 'n', 0, 'g', 'o'}

// hookHTTP2 has HTTP/2 connections served through http2Conn. net/http sets up
// TLSNextProto in Serve, before the first Accept.
func (s *Server) hookHTTP2() {
	s.http2.Do(func() {
		if s.srv.TLSNextProto["h2"] == nil {
			for _, cfg := range s.tlsConfigs {
				cfg.NextProtos = slices.DeleteFunc(cfg.NextProtos, func(p string) bool { return p == "h2" })
			}
		}
		plain := s.srv.TLSNextProto[http2Unencrypted]
		if plain == nil {
			return // no HTTP/2, or another implementation, which sends GOAWAY with the next response
		}
		next := maps.Clone(s.srv.TLSNextProto)
		next["h2"] = func(srv *http.Server, tc *tls.Conn, h http.Handler) {
			if hc := s.newHTTP2Conn(tc, tc); hc.readPreface() {
				plain(srv, asTLS(&http2TLSConn{hc, tc}), h)
			}
		}
		next[http2Unencrypted] = func(srv *http.Server, tc *tls.Conn, h http.Handler) {
			u, ok := tc.NetConn().(interface{ UnencryptedNetConn() net.Conn })
			if !ok {
				plain(srv, tc, h) // which complains
				return
			}
			plain(srv, asTLS(s.newHTTP2Conn(u.UnencryptedNetConn(), nil)), h)
		}
		s.srv.TLSNextProto = next
	})
}

// asTLS wraps nc as net/http's unencryptedTLSConn does.
func asTLS(nc net.Conn) *tls.Conn { return tls.Client(unencrypted{Conn: nc}, nil) }

type unencrypted struct{ net.Conn }

func (u unencrypted) UnencryptedNetConn() net.Conn { return u.Conn }

// http2Conn is a connection on which net/http speaks HTTP/2.
type http2Conn struct {
	net.Conn
	conn  *conn // what is known of it
	in    frames
	acked chan struct{} // closed when the client has answered our PING
	gone  chan struct{} // closed by Close
	once  sync.Once

	mu     sync.Mutex
	last   uint32 // the client's last stream
	fresh  bool   // the client may be about to open its first stream
	asked  bool   // leave was called
	pinged bool

	wmu sync.Mutex // for writing
	out frames
}

// http2TLSConn is one with TLS, about which net/http wants to know.
type http2TLSConn struct {
	*http2Conn
	tls *tls.Conn
}

// ConnectionState returns what net/http puts into requests.
func (h *http2TLSConn) ConnectionState() tls.ConnectionState { return h.tls.ConnectionState() }

// newHTTP2Conn wraps nc, which is under TLS if tc is not nil.
func (s *Server) newHTTP2Conn(nc net.Conn, tc *tls.Conn) *http2Conn {
	h := &http2Conn{Conn: nc, acked: make(chan struct{}), gone: make(chan struct{})}
	h.in.header = h.received
	h.conn = s.entry(nc, true)
	if h.conn == nil {
		h.conn = &conn{srv: s, outer: nc, bound: true}
	}
	c := h.conn
	c.mu.Lock()
	c.h2, c.bound = h, true
	c.mu.Unlock()
	if s.closes.Load() {
		h.leave()
	}
	return h
}

// readPreface reads what net/http wants to be read.
func (h *http2Conn) readPreface() bool {
	var b [len(http2Preface)]byte
	_ = h.Conn.SetReadDeadline(time.Now().Add(http2PrefaceTimeout)) // Read returns the error
	if _, err := io.ReadFull(h.Conn, b[:]); err != nil || string(b[:]) != http2Preface {
		return false
	}
	_ = h.Conn.SetReadDeadline(time.Time{}) // Read returns the error
	return true
}

func (h *http2Conn) tracked() *conn    { return h.conn }
func (h *http2Conn) secured() net.Conn { return h.Conn } // what net/http calls it otherwise

func (h *http2Conn) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.in.pass(p[:n])
	return n, err
}

func (h *http2Conn) Write(p []byte) (int, error) {
	h.wmu.Lock()
	defer h.wmu.Unlock()
	n, err := h.Conn.Write(p)
	h.out.pass(p[:n])
	if err == nil {
		h.firstPhaseLocked()
	}
	return n, err
}

func (h *http2Conn) Close() error {
	h.once.Do(func() { close(h.gone) })
	return h.Conn.Close()
}

// received handles each frame of the client: the header, and the payload of a PING.
func (h *http2Conn) received(f frameHeader, ping [8]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case f.kind == http2Headers:
		h.last = max(h.last, f.stream)
	case f.kind == http2Ping && f.flags&http2Ack != 0 && ping == http2PingData && h.pinged:
		h.pinged = false
		close(h.acked)
	}
}

// leave ends the connection in both phases, in the background. A client that has not
// sent a request yet made the connection for one: it gets a moment before GOAWAY, which
// not every client takes for a reason to connect again.
func (h *http2Conn) leave() {
	h.mu.Lock()
	asked := h.asked
	if !asked {
		h.asked, h.fresh = true, h.last == 0
	}
	fresh := h.fresh
	h.mu.Unlock()
	s := h.conn.srv
	if asked || !s.join() {
		return
	}
	go func() { // ends with the connection, or at the linger limit
		defer s.wg.Done()
		if fresh {
			t := time.NewTimer(http2Grace)
			defer t.Stop()
			select {
			case <-t.C:
			case <-h.acked: // GOAWAY went out with the first response
			case <-h.gone:
			case <-s.limit.Done():
			}
			h.mu.Lock()
			h.fresh = false
			h.mu.Unlock()
		}
		h.wmu.Lock()
		h.firstPhaseLocked()
		h.wmu.Unlock()
		select {
		case <-h.acked:
			h.secondPhase(s.limit)
		case <-h.gone:
		case <-s.limit.Done():
		}
	}()
}

// firstPhaseLocked sends the first GOAWAY, once, as soon as no frame is half written
// and the server has sent its settings, which must be first.
func (h *http2Conn) firstPhaseLocked() {
	h.mu.Lock()
	if !h.asked || h.pinged || h.fresh && h.last == 0 || h.out.count == 0 || !h.out.between() || isClosed(h.acked) {
		h.mu.Unlock()
		return
	}
	h.pinged = true
	h.mu.Unlock()
	b := goAway(1<<31 - 1)
	b = append(b, 0, 0, 8, http2Ping, 0, 0, 0, 0, 0)
	b = append(b, http2PingData[:]...)
	_, _ = h.Conn.Write(b) // an error shows in what net/http does next
}

// secondPhase closes the connection when it is quiet.
func (h *http2Conn) secondPhase(ctx context.Context) {
	t := time.NewTicker(http2Grace / 10)
	defer t.Stop()
	var last uint32
	quiet := time.Now()
	for {
		select {
		case <-t.C:
		case <-h.gone:
			return
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		now := h.last
		h.mu.Unlock()
		h.conn.mu.Lock()
		idle := h.conn.phase == phaseIdle
		h.conn.mu.Unlock()
		if now != last || !idle {
			last, quiet = now, time.Now()
			continue
		}
		if time.Since(quiet) < http2Grace {
			continue
		}
		h.wmu.Lock()
		if h.out.between() {
			_, _ = h.Conn.Write(goAway(last)) // the end says it as well
		}
		h.wmu.Unlock()
		_ = h.Close() // net/http's Read returns the error
		return
	}
}

// goAway returns a GOAWAY frame with NO_ERROR.
func goAway(last uint32) []byte {
	b := []byte{0, 0, 8, http2GoAway, 0, 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, last)
	return binary.BigEndian.AppendUint32(b, 0)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// frameHeader is the header of a frame (RFC 9113 section 4.1).
type frameHeader struct {
	kind, flags byte
	stream      uint32
}

// frames finds the frames in a stream of bytes.
type frames struct {
	header func(f frameHeader, ping [8]byte) // called at the end of a frame; may be nil
	buf    [http2FrameHeader]byte
	have   int // of buf
	left   int // of the payload
	ping   [8]byte
	npay   int // bytes of the payload so far, up to 8
	count  int // complete frames
}

// between reports whether no frame has begun and not ended.
func (f *frames) between() bool { return f.have == 0 }

func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.have < len(f.buf) {
			n := copy(f.buf[f.have:], p)
			f.have += n
			p = p[n:]
			if f.have < len(f.buf) {
				return
			}
			f.left = int(f.buf[0])<<16 | int(f.buf[1])<<8 | int(f.buf[2])
			f.npay = 0
		}
		n := min(f.left, len(p))
		f.npay += copy(f.ping[f.npay:], p[:n])
		f.left -= n
		p = p[n:]
		if f.left > 0 {
			return
		}
		f.have = 0
		f.count++
		if f.header != nil {
			f.header(frameHeader{kind: f.buf[3], flags: f.buf[4], stream: binary.BigEndian.Uint32(f.buf[5:]) &^ (1 << 31)}, f.ping)
		}
	}
}
