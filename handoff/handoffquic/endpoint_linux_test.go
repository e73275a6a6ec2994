package handoffquic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/quic-go/quic-go"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// newUpgrader returns an Upgrader in this process.
func newUpgrader(t *testing.T) *handoff.Upgrader {
	t.Helper()
	testenv.Need(t, "reuseport_bpf")
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"),
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{}, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Close() })
	return up
}

// configs returns those of a server and a client.
func configs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	certFile, keyFile, err := selfsigned.Write(t.TempDir(), "flows.test")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"x"}}, &tls.Config{RootCAs: roots, ServerName: "flows.test", NextProtos: []string{"x"}}
}

// dial opens and closes a connection.
func dial(t *testing.T, to net.Addr, cfg *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := quic.DialAddr(ctx, to.String(), cfg, nil)
	if err != nil {
		return err
	}
	return c.CloseWithError(0, "")
}

// TestListen has a QUIC server that is not one of HTTP, and counts its connections.
func TestListen(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t)
	server, client := configs(t)
	e, err := handoffquic.Listen(t.Context(), up, "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	conf, err := e.TLS(server)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := e.Transport.Listen(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := quic.DialAddr(ctx, ln.Addr().String(), client, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := e.Open(); n != 1 {
		t.Errorf("Open() = %d, want 1", n)
	}
	expired := make(chan struct{})
	close(expired)
	if e.Linger(expired) {
		t.Error("Linger() = true, and a connection is open")
	}
	if err := c.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	if !e.Linger(make(chan struct{})) || e.Open() != 0 {
		t.Error("Linger() = false, and no connection is open")
	}
}

// TestPacketConn has quic-go run on a PacketConn, which it refuses without ReadBatch.
func TestPacketConn(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t)
	server, client := configs(t)
	pc, err := up.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	defer tr.Close()
	if _, err := tr.Listen(server, nil); err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, pc.LocalAddr(), client); err != nil {
		t.Error(err)
	}
}

// TestErrors wants Listen to say what ListenFlows says.
func TestErrors(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t)
	if _, err := handoffquic.Listen(t.Context(), up, "127.0.0.1:0", &handoffquic.Config{Network: "tcp"}); !errors.Is(err, handoff.ErrUnsupported) {
		t.Errorf("Listen() on tcp = %v, want ErrUnsupported", err)
	}
}
