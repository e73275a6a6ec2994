package handoffhttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/handoff/handofftls"
)

// overTLS begins the names of tests whose lines speak TLS, with connections that move.
const overTLS = "TestOverTLS/"

// TestOverTLS runs the tests of connections that move again, over TLS.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(*testing.T){
		"AcceptedLate":     TestAcceptedLate,
		"BegunMoves":       TestBegunMoves,
		"Events":           TestEvents,
		"ExpectContinue":   TestExpectContinue,
		"HalfClose":        TestHalfClose,
		"Hijacked":         TestHijacked,
		"IdleMoves":        TestIdleMoves,
		"LargeBodyNotRead": TestLargeBodyNotRead,
		"LimitWhileMoving": TestLimitWhileMoving,
		"LineEndsMove":     TestLineEndsMove,
		"NewMoves":         TestNewMoves,
		"NotTaken":         TestNotTaken,
		"PartStays":        TestPartStays,
		"Pipeline":         TestPipeline,
		"RandomStreams":    TestRandomStreams,
		"Stop":             TestStop,
		"TakenLater":       TestTakenLater,
	} {
		t.Run(name, f)
	}
}

// newTLSLine starts a service whose TLS connections move.
func newTLSLine(tb testing.TB, prepare func(*generation)) *line {
	return startLine(tb, &line{secure: true, prepare: prepare})
}

// TestTLSStateMoves shows handlers the same http.Request.TLS before and after a move, of a
// client with a certificate.
func TestTLSStateMoves(t *testing.T) {
	t.Parallel()
	states := make(chan tls.ConnectionState, 1)
	l := newTLSLine(t, func(g *generation) {
		g.srv.TLSConfig = serverTLS().Clone()
		g.srv.TLSConfig.ClientAuth = tls.RequireAnyClientCert
		next := g.srv.Handler
		g.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			states <- *r.TLS
			next.ServeHTTP(w, r)
		})
	})
	l.client = &tls.Config{InsecureSkipVerify: true, ServerName: "h", NextProtos: []string{"http/1.1"}, Certificates: serverTLS().Certificates}
	c := l.dial()
	var first tls.ConnectionState
	for gen := 1; gen <= 3; gen++ {
		c.send(post)
		c.want(gen, "POST", "/b")
		st := <-states
		if gen == 1 {
			first = st
			if st.ServerName != "h" || st.NegotiatedProtocol != "http/1.1" || len(st.PeerCertificates) != 1 {
				t.Fatalf("the state lacks what the test is about: %+v", st)
			}
		}
		if st.ServerName != first.ServerName || st.NegotiatedProtocol != first.NegotiatedProtocol || st.Version != first.Version ||
			st.CipherSuite != first.CipherSuite || st.CurveID != first.CurveID || len(st.PeerCertificates) != 1 || !st.PeerCertificates[0].Equal(first.PeerCertificates[0]) {
			t.Errorf("generation %d: %+v, want %+v", gen, st, first)
		}
		if _, err := st.ExportKeyingMaterial("EXPORTER-test", nil, 16); (err == nil) != (gen == 1) {
			t.Errorf("generation %d: ExportKeyingMaterial() = %v", gen, err)
		}
		if r := l.upgrade(); r.Moved != 1 {
			t.Fatalf("linger: %+v, want one connection moved", r)
		}
	}
}

// TestTLSStays has connections that can't move, or that no successor takes: they end with
// their next response, and HTTP/2 with GOAWAY.
func TestTLSStays(t *testing.T) {
	t.Parallel()
	t.Run("resumed TLS 1.2", func(t *testing.T) {
		t.Parallel()
		l := newTLSLine(t, nil)
		l.client = &tls.Config{InsecureSkipVerify: true, ServerName: "h", MaxVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		first := l.dial()
		first.send(post)
		first.want(1, "POST", "/b")
		c := l.dial()
		c.send(post)
		c.want(1, "POST", "/b")
		if !c.nc.(*tls.Conn).ConnectionState().DidResume {
			t.Fatal("the client has not resumed its session")
		}
		old := l.replace()
		eventually(t, "the other connection moves", func() bool { return old.s.Open() == 1 })
		c.send(post)
		if res := c.want(1, "POST", "/b"); !res.close {
			t.Error("the response does not end the connection")
		}
		if r := old.gone(t); r.Moved != 1 || len(r.Cut) != 0 {
			t.Errorf("linger: %+v, want one connection moved and one ended", r)
		}
	})
	t.Run("the successor has no MoveTLS", func(t *testing.T) {
		t.Parallel()
		l := newTLSLine(t, nil)
		c := l.dial()
		c.send(post)
		c.want(1, "POST", "/b")
		l.secure = false
		old := l.replace()
		c.send(post)
		if res := c.want(1, "POST", "/b"); !res.close {
			t.Error("the response does not end the connection")
		}
		if r := old.gone(t); r.Moved+r.Stayed != 0 || len(r.Cut) != 0 {
			t.Errorf("linger: %+v, want one connection ended", r)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		l := newTLSLine(t, nil)
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP2(true)
		defer tr.CloseIdleConnections()
		for gen := 1; gen <= 2; gen++ {
			res, err := tr.RoundTrip(mustRequest(t, "https://"+l.addr+"/a"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.ProtoMajor != 2 || res.TLS == nil {
				t.Errorf("generation %d answers with %s", gen, res.Proto)
			}
			if gen == 1 {
				if r := l.upgrade(); r.Open != 1 || r.Moved != 0 || len(r.Cut) != 0 {
					t.Errorf("linger: %+v, want one connection ended", r)
				}
			}
		}
	})
}

func mustRequest(tb testing.TB, url string) *http.Request {
	tb.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestTLSHandshakeFails has clients that speak no TLS: they get net/http's answer, and its
// ErrorLog has a line.
func TestTLSHandshakeFails(t *testing.T) {
	t.Parallel()
	var lines safeBuffer
	l := newTLSLine(t, func(g *generation) { g.srv.ErrorLog = log.New(&lines, "", 0) })
	nc, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\n\r\n") // the answer tells
	_ = nc.SetDeadline(time.Now().Add(patience))        // ReadAll tells
	b, err := io.ReadAll(nc)
	if err != nil && !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(string(b), "HTTP/1.0 400 ") {
		t.Errorf("read %q, %v, want the status 400", b, err)
	}
	eventually(t, "the error is logged", func() bool {
		return strings.Contains(lines.String(), "TLS handshake error from "+nc.LocalAddr().String()+": client sent an HTTP request")
	})
}

// TestTLSCallbackPanics has a callback of the TLS configuration panic: its connection ends,
// the panic is logged, and other clients are served.
func TestTLSCallbackPanics(t *testing.T) {
	t.Parallel()
	var lines safeBuffer
	l := newTLSLine(t, func(g *generation) {
		g.srv.ErrorLog = log.New(&lines, "", 0)
		g.srv.TLSConfig = serverTLS().Clone()
		g.srv.TLSConfig.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName == "panic" {
				panic("of the program's")
			}
			return nil, nil
		}
	})
	nc, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience)) // Handshake tells
	if err := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, ServerName: "panic"}).Handshake(); err == nil {
		t.Error("the handshake has succeeded")
	}
	eventually(t, "the panic is logged", func() bool {
		return strings.Contains(lines.String(), "panic serving "+nc.LocalAddr().String()+": of the program's")
	})
	c := l.dial()
	c.send(post)
	c.want(1, "POST", "/b")
}

// TestGoodbyeMovesTLS passes a hijacked connection on, from Goodbye.
func TestGoodbyeMovesTLS(t *testing.T) {
	t.Parallel()
	up := newFakeUpgrader()
	moved := make(chan error, 1)
	l := startLine(t, &line{secure: true, config: &handoffhttp.Config{Goodbye: func(ctx context.Context, nc net.Conn) {
		err := handofftls.Send(ctx, up, "socket", nc, []byte("state"))
		moved <- err
		_ = nc.Close() // its place is free
	}}, prepare: func(g *generation) {
		g.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, err = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: mine\r\nConnection: Upgrade\r\n\r\n")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}})
	cfg := &handofftls.Config{}
	next := newFakeUpgrader()
	from, err := next.Conns(cfg.Name("socket"))
	if err != nil {
		t.Fatal(err)
	}
	up.next = next
	c := l.dial()
	c.send("GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: mine\r\nConnection: Upgrade\r\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	received := make(chan handoff.MovedConn, 1)
	go func() { received <- <-from }()
	if r := l.upgrade(); len(r.Cut) != 0 {
		t.Errorf("linger: %+v, want none cut", r)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	socket, state, err := handofftls.Receive(<-received, cfg)
	if err != nil || string(state) != "state" {
		t.Fatalf("Receive() = %q, %v", state, err)
	}
	defer socket.Close()
	c.send("hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(socket, b); err != nil || !bytes.Equal(b, []byte("hello")) {
		t.Errorf("read %q, %v", b, err)
	}
}

// safeBuffer is one that several goroutines may use.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
