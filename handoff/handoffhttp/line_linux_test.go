package handoffhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// patience bounds each wait.
const patience = time.Minute

// fakeUpgrader passes connections on within the process, with true descriptors.
type fakeUpgrader struct {
	done, expired chan struct{}

	mu     sync.Mutex
	next   *fakeUpgrader // nil: the service stops
	inbox  map[string]chan handoff.MovedConn
	refuse int // of the connections to come, how many the successor doesn't take; negative means all
	sent   int
	stuck  bool // the successor doesn't answer
}

func newFakeUpgrader() *fakeUpgrader {
	return &fakeUpgrader{done: make(chan struct{}), expired: make(chan struct{}), inbox: make(map[string]chan handoff.MovedConn)}
}

func (u *fakeUpgrader) Done() <-chan struct{}          { return u.done }
func (u *fakeUpgrader) LingerExpired() <-chan struct{} { return u.expired }

func (u *fakeUpgrader) Takes(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.next != nil && u.next.box(name) != nil
}

func (u *fakeUpgrader) over() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

func (u *fakeUpgrader) box(name string) chan handoff.MovedConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.inbox[name]
}

func (u *fakeUpgrader) Conns(name string) (<-chan handoff.MovedConn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inbox[name] == nil {
		u.inbox[name] = make(chan handoff.MovedConn)
	}
	return u.inbox[name], nil
}

func (u *fakeUpgrader) SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.mu.Lock()
	next, refuse := u.next, u.refuse != 0
	if u.refuse > 0 {
		u.refuse--
	}
	u.sent++
	stuck := u.stuck
	u.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	if next == nil {
		return handoff.ErrNoSuccessor
	}
	for next.over() { // it has passed the conversation on, or is about to
		next.mu.Lock()
		after := next.next
		next.mu.Unlock()
		if after == nil {
			return handoff.ErrNotTaken
		}
		next = after
	}
	if refuse {
		return handoff.ErrNotTaken
	}
	fd, err := fdx.Dup(conn.(syscall.Conn))
	if err != nil {
		return err
	}
	nc, err := fdx.Conn(fd, name)
	if err != nil {
		return err
	}
	select {
	case next.box(name) <- handoff.MovedConn{Conn: nc, State: bytes.Clone(state)}: // a socket copies, too
	case <-next.done:
		_ = nc.Close()
		return handoff.ErrNotTaken
	}
	return conn.Close()
}

// A generation is one server of a line on the same socket.
type generation struct {
	n      int
	up     *fakeUpgrader
	srv    *http.Server
	s      *handoffhttp.Server
	ln     net.Listener
	secure net.Listener // on ln
	served chan struct{}
	report chan *handoffhttp.Report
}

// A line is a service that is replaced within the process.
type line struct {
	tb      testing.TB
	addr    string
	prepare func(*generation)
	config  *handoffhttp.Config
	secure  bool // it speaks TLS, and its connections move
	client  *tls.Config
	now     *generation
	old     []*generation

	mu      sync.Mutex
	blocked map[string]chan struct{} // by path: a handler waits
	entered chan string              // paths of handlers that wait
	served  map[string]int           // by the header Id
}

// newLine starts a service. prepare changes each generation's http.Server.
func newLine(tb testing.TB, config *handoffhttp.Config, prepare func(*generation)) *line {
	tb.Helper()
	return startLine(tb, &line{prepare: prepare, config: config, secure: strings.HasPrefix(tb.Name(), overTLS)})
}

// startLine starts a service whose first fields are set.
func startLine(tb testing.TB, l *line) *line {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l.tb, l.addr = tb, ln.Addr().String()
	l.blocked, l.entered, l.served = make(map[string]chan struct{}), make(chan string, 100), make(map[string]int)
	l.now = l.generation(1, ln)
	l.now.serve()
	tb.Cleanup(func() { l.stop() })
	return l
}

func (l *line) generation(n int, ln net.Listener) *generation {
	g := &generation{
		n: n, up: newFakeUpgrader(), ln: ln,
		served: make(chan struct{}), report: make(chan *handoffhttp.Report, 1),
	}
	g.srv = &http.Server{Handler: l.handler(n)}
	config := l.config
	if l.secure {
		g.srv.TLSConfig = serverTLS()
		c := handoffhttp.Config{}
		if config != nil {
			c = *config
		}
		c.MoveTLS = true
		config = &c
	}
	if l.prepare != nil {
		l.prepare(g)
	}
	g.s = handoffhttp.NewTestServer(g.up, g.srv, config)
	g.ln = g.s.Wrap(ln)
	g.secure = g.ln
	if l.secure {
		var err error
		if g.ln, g.secure, err = g.s.WrapTLS(ln); err != nil {
			l.tb.Fatal(err)
		}
	}
	return g
}

func (g *generation) serve() {
	go func() { // ends with the listener
		defer close(g.served)
		_ = g.s.ServeOn(g.ln, g.secure)
	}()
	go func() { g.report <- g.s.Linger(context.Background()) }()
}

// replace begins an upgrade and returns the predecessor, which lingers.
func (l *line) replace() *generation {
	l.tb.Helper()
	old := l.now
	fd, err := fdx.Dup(rawListener(old.ln))
	if err != nil {
		l.tb.Fatal(err)
	}
	ln, err := fdx.Listener(fd, "copy")
	if err != nil {
		l.tb.Fatal(err)
	}
	l.now = l.generation(old.n+1, ln)
	l.now.serve()
	old.up.mu.Lock()
	old.up.next = l.now.up
	old.up.mu.Unlock()
	l.old = append(l.old, old)
	old.end()
	return old
}

func rawListener(ln net.Listener) *net.TCPListener {
	return handoffhttp.Inner(ln).(*net.TCPListener)
}

// end has the generation linger.
func (g *generation) end() {
	close(g.up.done)
	_ = g.ln.Close()
	<-g.served
}

// gone waits for the end of a generation's linger.
func (g *generation) gone(tb testing.TB) *handoffhttp.Report {
	tb.Helper()
	select {
	case r := <-g.report:
		g.report <- r
		return r
	case <-time.After(patience):
		tb.Fatalf("generation %d still lingers, with %d connections", g.n, g.s.Open())
		return nil
	}
}

// upgrade replaces the server and waits for the end of the old one.
func (l *line) upgrade() *handoffhttp.Report {
	l.tb.Helper()
	return l.replace().gone(l.tb)
}

// stop ends all, without patience.
func (l *line) stop() {
	select {
	case <-l.now.up.done:
	default:
		l.now.end()
	}
	l.mu.Lock()
	for path, c := range l.blocked {
		close(c)
		delete(l.blocked, path)
	}
	l.mu.Unlock()
	for _, g := range append(l.old, l.now) {
		select {
		case <-g.up.expired:
		default:
			close(g.up.expired)
		}
		g.gone(l.tb)
	}
}

// block has requests for path wait until release.
func (l *line) block(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked[path] = make(chan struct{})
}

func (l *line) release(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.blocked[path])
	delete(l.blocked, path)
}

// waitEntered waits until a request for a blocked path is being served.
func (l *line) waitEntered() {
	l.tb.Helper()
	select {
	case <-l.entered:
	case <-time.After(patience):
		l.tb.Fatal("no request arrived")
	}
}

// handler answers with the generation, the request and a hash of its body.
func (l *line) handler(n int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("Id"); id != "" {
			l.mu.Lock()
			l.served[id]++
			l.mu.Unlock()
		}
		var sum string
		if r.URL.Path != "/unread" {
			h := sha256.New()
			size, err := io.Copy(h, r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			sum = fmt.Sprintf("%d:%x", size, h.Sum(nil)[:4])
		}
		l.mu.Lock()
		wait := l.blocked[r.URL.Path]
		l.mu.Unlock()
		if wait != nil {
			l.entered <- r.URL.Path
			<-wait
		}
		w.Header().Set("Gen", fmt.Sprint(n))
		_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.Path, sum, r.Trailer.Get("T"))
	})
}

// client is one that doesn't retry, on one connection.
type client struct {
	net.Conn // nc
	tb       testing.TB
	nc       net.Conn
	r        *bufio.Reader
}

func newClient(tb testing.TB, nc net.Conn) *client {
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &client{tb: tb, Conn: nc, nc: nc, r: bufio.NewReader(nc)}
}

func handoffState(idle bool, silent time.Duration) []byte {
	return handoffhttp.State(idle, silent, 4, "")
}

func socketpair() ([2]int, error) {
	return syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
}

func (l *line) dial() *client {
	l.tb.Helper()
	nc, err := net.DialTimeout("tcp", l.addr, patience)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() { _ = nc.Close() })
	if l.secure {
		tc := tls.Client(nc, l.client)
		if l.client == nil {
			tc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		_ = nc.SetDeadline(time.Now().Add(patience)) // Handshake tells
		if err := tc.Handshake(); err != nil {
			l.tb.Fatal(err)
		}
		nc = tc
	}
	return newClient(l.tb, nc)
}

// serverTLS returns a configuration with a certificate of its own.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

func (c *client) send(s string) {
	c.tb.Helper()
	_ = c.nc.SetDeadline(time.Now().Add(patience)) // Write tells
	if _, err := io.WriteString(c.nc, s); err != nil {
		c.tb.Fatal(err)
	}
}

// response is what a test looks at.
type response struct {
	gen   string
	body  string
	close bool
}

func (c *client) receive(method string) (response, error) {
	_ = c.nc.SetDeadline(time.Now().Add(patience)) // Read tells
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return response{}, err
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return response{}, err
	}
	if res.StatusCode != http.StatusOK {
		return response{}, fmt.Errorf("status %s: %s", res.Status, b)
	}
	return response{res.Header.Get("Gen"), string(b), res.Close}, nil
}

// want receives a response and compares it; 0 is any generation.
func (c *client) want(gen int, method, path string) response {
	c.tb.Helper()
	res, err := c.receive(method)
	if err != nil {
		c.tb.Fatalf("%s %s: %v, want a response of generation %d", method, path, err, gen)
	}
	if want := method + " " + path + " "; gen != 0 && res.gen != fmt.Sprint(gen) || method != "HEAD" && len(res.body) < len(want) || method != "HEAD" && res.body[:len(want)] != want {
		c.tb.Fatalf("response of generation %s, %q, want %d, %q", res.gen, res.body, gen, want)
	}
	return res
}

// wantEOF expects the end of the connection.
func (c *client) wantEOF() {
	c.tb.Helper()
	if b, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		c.tb.Fatalf("read %q, %v, want EOF", b, err)
	}
}

// eventually polls for a condition without an event.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// sum is the handler's.
func sum(body string) string {
	h := sha256.Sum256([]byte(body))
	return fmt.Sprintf("%x", h[:4])
}

// CloseWrite ends what the client sends.
func (c *client) CloseWrite() error { return c.nc.(interface{ CloseWrite() error }).CloseWrite() }
