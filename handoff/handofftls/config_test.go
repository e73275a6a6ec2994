package handofftls

import (
	"bytes"
	"crypto/cipher"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A keyLogger is a program's KeyLogWriter.
type keyLogger struct {
	mu  sync.Mutex
	b   bytes.Buffer
	err error
}

func (k *keyLogger) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return 0, k.err
	}
	return k.b.Write(p)
}

// lines returns what was written, sorted.
func (k *keyLogger) lines() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(strings.Lines(k.b.String()))
}

// TestKeyLogWriter shows that a program's KeyLogWriter gets each line that the client's
// gets, from the configuration that is used, and that its error ends the handshake.
func TestKeyLogWriter(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, own := range []bool{false, true} { // a configuration for the client
			t.Run(fmt.Sprintf("%s own=%t", tls.VersionName(version), own), func(t *testing.T) {
				t.Parallel()
				var server, unused, client keyLogger
				cfg := plain()
				cfg.TLS.MaxVersion = version
				cfg.TLS.KeyLogWriter = &server
				if own {
					used := cfg.TLS.Clone()
					cfg.TLS.KeyLogWriter = &unused
					cfg.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return used, nil }
				}
				_, c := establish(t, cfg, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &client})
				if diff := cmp.Diff(client.lines(), server.lines()); diff != "" || len(client.lines()) == 0 {
					t.Errorf("lines of the server's log (-want +got):\n%s", diff)
				}
				if lines := unused.lines(); len(lines) > 0 {
					t.Errorf("lines in the log of the other configuration: %q", lines)
				}
				if err := c.CanMove(); err != nil {
					t.Error(err)
				}

				server.err = errors.New("the disk is full")
				near, far := net.Pipe()
				defer far.Close()
				shaken := make(chan error, 1)
				go func() { shaken <- tls.Client(far, insecure).Handshake() }()
				if _, err := Server(t.Context(), near, cfg); !errors.Is(err, server.err) {
					t.Errorf("Server() = %v, want the error of the log", err)
				}
				_ = near.Close() // ends the client
				<-shaken
			})
		}
	}
}

// TestCallbacks calls a program's GetConfigForClient and GetCertificate with the
// program's connection, uses what they return, and returns their errors.
func TestCallbacks(t *testing.T) {
	t.Parallel()
	errNo := errors.New("not this one")
	var conns []net.Conn
	cfg := &Config{TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("of the other configuration")
	}}}
	chosen := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		conns = append(conns, hello.Conn)
		cert := otherCertificate()
		return &cert, nil
	}}
	cfg.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		conns = append(conns, hello.Conn)
		if hello.ServerName == "no.example" {
			return nil, errNo
		}
		return chosen, nil
	}
	tc, c := establish(t, cfg, insecure)
	if got := tc.ConnectionState().PeerCertificates[0]; !got.Equal(otherCertificate().Leaf) {
		t.Error("the client gets another certificate than that of the chosen configuration")
	}
	if len(conns) != 2 || conns[0] != c.NetConn() || conns[1] != c.NetConn() {
		t.Errorf("the callbacks get the connections %v, want %v twice", conns, c.NetConn())
	}
	both(t, tc, move(t, c), "moved")

	client, server := dial(t)
	shaken := make(chan error, 1)
	go func() {
		shaken <- tls.Client(client, &tls.Config{InsecureSkipVerify: true, ServerName: "no.example"}).Handshake()
	}()
	if _, err := Server(t.Context(), server, cfg); !errors.Is(err, errNo) {
		t.Errorf("Server() = %v, want the callback's error", err)
	}
	_ = server.Close() // ends the client
	<-shaken
}

// TestName shows that connections move under a name that says whether ChaCha20-Poly1305
// is there.
func TestName(t *testing.T) {
	t.Parallel()
	with := &Config{ChaCha20Poly1305: func([]byte) (cipher.AEAD, error) { return nil, nil }}
	if got, want := with.Name("x"), "tls/1+chacha20 x"; got != want {
		t.Errorf("Name() = %q, want %q", got, want)
	}
	if got, want := new(Config).Name("x"), "tls/1 x"; got != want {
		t.Errorf("Name() = %q, want %q", got, want)
	}
}

// TestWarning has a client of TLS 1.2 send an alert that ends nothing. Its record has a
// sequence number and no data, and stands out by its type.
func TestWarning(t *testing.T) {
	t.Parallel()
	tc, c := establish(t, plain(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	m := c.moving()
	s, _ := suiteOf(m.version, m.suite, nil)
	client, err := newHalf(m.version, s, bytes.Clone(m.in), m.inSeq)
	if err != nil {
		t.Fatal(err)
	}
	const noRenegotiation = "\x01\x64"
	if _, err := tc.NetConn().Write(sealed(t, &client, typeAlert, noRenegotiation, typeData, "data")); err != nil {
		t.Fatal(err)
	}
	exchangeSent(t, c, "data")
	if err := c.CanMove(); !errors.Is(err, ErrStays) {
		t.Errorf("CanMove() after a warning = %v, want ErrStays", err)
	}
}
