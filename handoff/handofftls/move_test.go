package handofftls

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-11c92bf9/baton/handoff"
)

// sameState compares what users see of a connection.
func sameState(got, want tls.ConnectionState) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(tls.ConnectionState{}),
		cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) }))
}

// TestMoves moves connections of each kind five times, with data in both directions
// between, and shows that the client sees one connection, and handlers one state.
func TestMoves(t *testing.T) {
	t.Parallel()
	type kind struct {
		version uint16
		suite   uint16 // of TLS 1.2
		curves  []tls.CurveID
		rsa     bool
	}
	kinds := []kind{
		{version: tls.VersionTLS13},
		{version: tls.VersionTLS13, curves: []tls.CurveID{tls.CurveP384}, rsa: true}, // with a second hello
		{version: tls.VersionTLS12, suite: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		{version: tls.VersionTLS12, suite: tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
		{version: tls.VersionTLS12, suite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, rsa: true},
		{version: tls.VersionTLS12, suite: tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, rsa: true},
	}
	for _, k := range kinds {
		for _, authenticated := range []bool{false, true} {
			for _, with := range []string{"tickets", "no tickets", "resumption"} {
				t.Run(fmt.Sprintf("%s %s %v client=%t %s", tls.VersionName(k.version), tls.CipherSuiteName(k.suite), k.curves, authenticated, with), func(t *testing.T) {
					t.Parallel()
					cert := ecdsaCertificate()
					if k.rsa {
						cert = rsaCertificate()
					}
					pool := x509.NewCertPool()
					pool.AddCert(cert.Leaf)
					var suites []uint16
					if k.suite != 0 {
						suites = []uint16{k.suite}
					}
					server := &tls.Config{
						Certificates: []tls.Certificate{cert}, MinVersion: k.version, MaxVersion: k.version, CipherSuites: suites,
						NextProtos: []string{"echo"}, SessionTicketsDisabled: with == "no tickets", CurvePreferences: k.curves,
					}
					client := &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"echo"}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
					if authenticated {
						server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, pool
						client.Certificates = []tls.Certificate{cert}
					}
					cfg := &Config{TLS: server}
					tc, c := establish(t, cfg, client)
					if with == "resumption" {
						exchange(t, c, tc, []byte("the ticket comes first"))
						_ = tc.Close()
						tc, c = establish(t, cfg, client)
						if !tc.ConnectionState().DidResume {
							t.Fatal("the client has not resumed its session")
						}
						if k.version == tls.VersionTLS12 { // crypto/tls logs no key
							if err := c.CanMove(); !errors.Is(err, ErrStays) {
								t.Errorf("CanMove() of a session of TLS 1.2 that was resumed = %v, want ErrStays", err)
							}
							both(t, tc, c, "is served on")
							return
						}
					}
					want := c.ConnectionState()
					big := make([]byte, 100_000)
					_, _ = rand.Read(big)
					for i := range 5 {
						c = move(t, c)
						if diff := sameState(c.ConnectionState(), want); diff != "" {
							t.Fatalf("the state after %d moves (-want +got):\n%s", i+1, diff)
						}
						both(t, tc, c, "hello")
						both(t, tc, c, string(big))
					}
					if k.curves != nil && want.CurveID != k.curves[0] || want.DidResume != (with == "resumption") || len(want.VerifiedChains) > 0 != authenticated {
						t.Errorf("not the kind of connection that the test is for: %+v", want)
					}
					if authenticated && !c.ConnectionState().VerifiedChains[0][0].Equal(cert.Leaf) {
						t.Error("another client")
					}
					_ = c.Close()
					if n, err := tc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
						t.Errorf("the client reads %d, %v after Close, want io.EOF: close_notify", n, err)
					}
				})
			}
		}
	}
}

// TestManyCertificates moves a connection whose client has sent many certificates, which
// is the client's choice.
func TestManyCertificates(t *testing.T) {
	t.Parallel()
	cert := ecdsaCertificate()
	client := insecure.Clone()
	client.Certificates = []tls.Certificate{{Certificate: slices.Repeat(cert.Certificate, 300), PrivateKey: cert.PrivateKey}}
	cfg := plain()
	cfg.TLS.ClientAuth = tls.RequireAnyClientCert
	tc, c := establish(t, cfg, client)
	want := c.ConnectionState()
	c = move(t, c)
	if diff := sameState(c.ConnectionState(), want); diff != "" || len(want.PeerCertificates) != 300 {
		t.Errorf("%d certificates (-want +got):\n%s", len(want.PeerCertificates), diff)
	}
	both(t, tc, c, "hello")
}

// TestCanMoveBesideStay asks whether a connection can move while the user of its *tls.Conn
// reads: for the race detector.
func TestCanMoveBesideStay(t *testing.T) {
	t.Parallel()
	tc, c := establish(t, plain(), insecure)
	stays := c.Stay()
	read := make(chan error, 1)
	go func() { // ends with what the client writes
		_, err := io.ReadFull(stays, make([]byte, 2))
		read <- err
	}()
	for _, text := range []string{"a", "b"} {
		if err := c.CanMove(); !errors.Is(err, ErrStays) {
			t.Errorf("CanMove() = %v, want ErrStays", err)
		}
		if _, err := tc.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// TestExporter has a handler ask for keying material after a move: an error, no panic.
func TestExporter(t *testing.T) {
	t.Parallel()
	_, c := establish(t, plain(), insecure)
	st := c.ConnectionState()
	if _, err := st.ExportKeyingMaterial("EXPORTER-test", nil, 32); err != nil {
		t.Fatal(err)
	}
	st = move(t, c).ConnectionState()
	if b, err := st.ExportKeyingMaterial("EXPORTER-test", nil, 32); err == nil {
		t.Errorf("ExportKeyingMaterial() = %x after a move, want an error", b)
	}
}

// TestSecretsCleared shows that no state is left where it has been.
func TestSecretsCleared(t *testing.T) {
	t.Parallel()
	tc, c := establish(t, plain(), insecure)
	for range 2 {
		var up carrier
		if err := Send(t.Context(), &up, "test", c, []byte("mine")); err != nil {
			t.Fatal(err)
		}
		if up.name != "tls/1 test" {
			t.Errorf("moves under the name %q", up.name)
		}
		zero := func(what string, b []byte) {
			t.Helper()
			if len(b) == 0 || !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("%s: %x, want zeros", what, b)
			}
		}
		zero("the state in the predecessor", up.leak)
		if c.layer != nil {
			zero("a key in the predecessor", c.layer.in.secret)
			zero("a key in the predecessor", c.layer.out.secret)
		} else {
			zero("a key in the predecessor", c.keys.in)
			zero("a key in the predecessor", c.keys.out)
		}
		var err error
		if c, _, err = Receive(*up.moved, c.cfg); err != nil {
			t.Fatal(err)
		}
		zero("the state in the successor", up.moved.State)
		both(t, tc, c, "works")
	}
}

// TestSend has moves end in each way: the successor has the connection, does not take it,
// or has perhaps used it. Only in the second case the predecessor serves on.
func TestSend(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		for _, outcome := range []error{nil, handoff.ErrInDoubt, handoff.ErrNotTaken, net.ErrClosed} {
			t.Run(fmt.Sprintf("moved=%t %v", again, outcome), func(t *testing.T) {
				t.Parallel()
				tc, c := establish(t, plain(), insecure)
				if again {
					c = move(t, c)
				}
				both(t, tc, c, "before")
				up := carrier{err: outcome}
				if err := Send(t.Context(), &up, "test", c, nil); !errors.Is(err, outcome) {
					t.Fatalf("Send() = %v, want %v", err, outcome)
				}
				if outcome != nil && !errors.Is(outcome, handoff.ErrInDoubt) {
					both(t, tc, c, "serves on")
					both(t, tc, move(t, c), "moves later")
					return
				}
				if _, err := c.Write([]byte("x")); !errors.Is(err, ErrMoved) || !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write() = %v, want ErrMoved", err)
				}
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrMoved) {
					t.Errorf("Read() = %v, want ErrMoved", err)
				}
				if err := c.CanMove(); !errors.Is(err, ErrMoved) {
					t.Errorf("CanMove() = %v, want ErrMoved", err)
				}
				if err := c.CloseWrite(); !errors.Is(err, ErrMoved) {
					t.Errorf("CloseWrite() = %v, want ErrMoved", err)
				}
				if err := c.Close(); err != nil {
					t.Errorf("Close() = %v", err)
				}
				// None of that has reached the client.
				next, _, err := Receive(*up.moved, c.cfg)
				if err != nil {
					t.Fatal(err)
				}
				both(t, tc, next, "undisturbed")
			})
		}
	}
}

// TestBusy moves connections that are in use: they don't.
func TestBusy(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("moved=%t", again), func(t *testing.T) {
			t.Parallel()
			tc, c := establish(t, plain(), insecure)
			if again {
				c = move(t, c)
			}
			read := make(chan error, 1)
			go func() { _, err := io.ReadFull(c, make([]byte, 1)); read <- err }()
			for c.rmu.TryLock() { // until the Read is in progress
				c.rmu.Unlock()
			}
			if _, err := tryMove(c); !errors.Is(err, ErrBusy) {
				t.Errorf("Send() during a Read = %v, want ErrBusy", err)
			}
			if _, err := tc.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := <-read; err != nil {
				t.Fatal(err)
			}
			// A Write that the client does not read.
			wrote := make(chan error, 1)
			go func() {
				b := make([]byte, 1<<20)
				for {
					if _, err := c.Write(b); err != nil {
						wrote <- err
						return
					}
				}
			}()
			for c.wmu.TryLock() {
				c.wmu.Unlock()
			}
			if _, err := tryMove(c); !errors.Is(err, ErrBusy) {
				t.Errorf("Send() during a Write = %v, want ErrBusy", err)
			}
			if err := c.Close(); err != nil { // interrupts it
				t.Errorf("Close() = %v", err)
			}
			if err := <-wrote; err == nil {
				t.Error("Write returned nil after Close")
			}
			if _, err := tryMove(c); !errors.Is(err, ErrStays) {
				t.Errorf("Send() after Close = %v, want ErrStays", err)
			}
		})
	}
}
