package handofftls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// patience bounds each wait.
const patience = time.Minute

// certificate returns one for localhost, which is its own authority.
func certificate(key crypto.Signer) tls.Certificate {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

var (
	ecdsaCertificate = sync.OnceValue(newCertificate)
	otherCertificate = sync.OnceValue(newCertificate)
)

func newCertificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return certificate(key)
}

var rsaCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return certificate(key)
})

// dial returns both ends of a connection over loopback.
func dial(tb testing.TB) (client, server net.Conn) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	for _, nc := range []net.Conn{client, server} {
		if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
			tb.Fatal(err)
		}
	}
	return client, server
}

// establish makes a connection with a client of crypto/tls.
func establish(tb testing.TB, cfg *Config, clientConfig *tls.Config) (*tls.Conn, *Conn) {
	tb.Helper()
	client, server := dial(tb)
	return establishOn(tb, cfg, clientConfig, client, server)
}

// establishOn makes a connection on the two ends of another.
func establishOn(tb testing.TB, cfg *Config, clientConfig *tls.Config, client, server net.Conn) (*tls.Conn, *Conn) {
	tb.Helper()
	tc := tls.Client(client, clientConfig)
	shaken := make(chan error, 1)
	go func() { shaken <- tc.Handshake() }()
	c, err := Server(context.Background(), server, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := <-shaken; err != nil {
		tb.Fatal(err)
	}
	return tc, c
}

// A peer is the client's end in the record layer of this package: it sends what
// crypto/tls never does.
type peer struct {
	ends
	raw net.Conn
}

// establishPeer makes a connection with a peer, of TLS 1.3.
func establishPeer(tb testing.TB, cfg *Config) (peer, *Conn) {
	tb.Helper()
	near, server := dial(tb)
	s, _ := suiteOf(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, nil)
	shaken := make(chan error, 1)
	var l *layer
	go func() {
		var err error
		l, err = (&client{Conn: near, suite: s}).handshake(tls.TLS_AES_128_GCM_SHA256)
		shaken <- err
	}()
	c, err := Server(context.Background(), server, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := <-shaken; err != nil {
		tb.Fatal(err)
	}
	return peer{ends{l}, near}, c
}

// send sends a record with any content, padded.
func (p peer) send(tb testing.TB, typ byte, data []byte, padding int) {
	tb.Helper()
	if _, err := p.raw.Write(p.seal(tb, typ, data, padding)); err != nil {
		tb.Fatal(err)
	}
}

// seal returns a record with any content, padded.
func (p peer) seal(tb testing.TB, typ byte, data []byte, padding int) []byte {
	tb.Helper()
	if padding > 0 { // the last byte of the content that is not zero is the type
		data, typ = append(append(bytes.Clone(data), typ), make([]byte, padding-1)...), 0
	}
	b, err := p.l.out.seal(nil, typ, data)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// keyUpdate sends KeyUpdate and goes to the next key.
func (p peer) keyUpdate(tb testing.TB, requested byte) {
	tb.Helper()
	if err := p.update(requested); err != nil {
		tb.Fatal(err)
	}
}

// update is keyUpdate in any goroutine.
func (p peer) update(requested byte) error {
	b, err := p.l.out.seal(nil, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, requested})
	if err == nil {
		_, err = p.raw.Write(b)
	}
	return errors.Join(err, p.l.out.update())
}

// plain returns a Config for a server with a certificate of ECDSA.
func plain() *Config {
	return &Config{TLS: &tls.Config{Certificates: []tls.Certificate{ecdsaCertificate()}}}
}

var insecure = &tls.Config{InsecureSkipVerify: true}

// exchange sends data from one end to the other, and compares.
func exchange(tb testing.TB, from io.Writer, to io.Reader, data []byte) {
	tb.Helper()
	wrote := make(chan error, 1)
	go func() { _, err := from.Write(data); wrote <- err }()
	got := make([]byte, len(data))
	if n, err := io.ReadFull(to, got); err != nil {
		tb.Fatalf("read %d of %d bytes: %v", n, len(data), err)
	}
	if err := <-wrote; err != nil {
		tb.Fatalf("write: %v", err)
	}
	if !bytes.Equal(got, data) {
		tb.Fatal("other bytes arrived")
	}
}

// both exchanges data in both directions.
func both(tb testing.TB, a, b io.ReadWriter, text string) {
	tb.Helper()
	exchange(tb, a, b, []byte(text+" there"))
	exchange(tb, b, a, []byte(text+" back"))
}

// A carrier is a Sender within the process: the successor gets the connection itself.
type carrier struct {
	err   error // of SendConn
	moved *handoff.MovedConn
	name  string
	leak  []byte // the state of Send's, which Send clears
}

func (s *carrier) SendConn(_ context.Context, name string, conn net.Conn, state []byte) error {
	s.name, s.leak = name, state
	s.moved = &handoff.MovedConn{Conn: conn, State: bytes.Clone(state)}
	return s.err
}

// move moves c as if to another process.
func move(tb testing.TB, c *Conn) *Conn {
	tb.Helper()
	next, err := tryMove(c)
	if err != nil {
		tb.Fatal(err)
	}
	return next
}

func tryMove(c *Conn) (*Conn, error) {
	var up carrier
	if err := Send(context.Background(), &up, "test", c, []byte("mine")); err != nil {
		return nil, err
	}
	next, state, err := Receive(*up.moved, c.cfg)
	if err == nil && string(state) != "mine" {
		return nil, ErrState
	}
	return next, err
}

// silence has a Read of c find no data in this process. It reads nothing from the socket.
func silence(tb testing.TB, c *Conn) {
	tb.Helper()
	timedOut(tb, c, time.Unix(1, 0))
}

// glance has c read what arrives within a moment, and bring no data.
func glance(tb testing.TB, c *Conn) {
	tb.Helper()
	timedOut(tb, c, time.Now().Add(time.Millisecond))
}

func timedOut(tb testing.TB, c *Conn, deadline time.Time) {
	tb.Helper()
	_ = c.SetReadDeadline(deadline) // Read tells
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || !isTimeout(err) {
		tb.Fatalf("Read() = %d, %v, want a timeout", n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience)) // Read tells
}

// eventually repeats a step until it succeeds.
func eventually(tb testing.TB, what string, step func() bool) {
	tb.Helper()
	for limit := time.Now().Add(patience); !step(); {
		if time.Now().After(limit) {
			tb.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
