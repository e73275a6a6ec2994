package handofftls

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// probe finds out whether crypto/tls of this build does what this package relies on: what
// it writes to the key log, and how it numbers its records. For each version and suite it
// makes a handshake in memory, moves the server's end, and exchanges data before and after.
func probe(chacha func(key []byte) (cipher.AEAD, error)) error {
	if fips140.Enabled() {
		return errors.New("handofftls: FIPS 140-3 mode (GODEBUG=fips140) is on, and the record layer for moved connections has no certificate")
	}
	cert, err := probeCertificate()
	if err != nil {
		return err
	}
	cases := []struct{ version, suite uint16 }{
		{tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256},
		{tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384},
		{tls.VersionTLS13, tls.TLS_CHACHA20_POLY1305_SHA256},
		{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
		{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	}
	for _, c := range cases {
		s, ok := suiteOf(c.version, c.suite, chacha)
		if !ok {
			continue // its connections stay
		}
		if err := probeMove(cert, c.version, c.suite, s, chacha); err != nil {
			return fmt.Errorf("handofftls: a move with %s of %s in memory: %w", tls.CipherSuiteName(c.suite), tls.VersionName(c.version), err)
		}
	}
	return nil
}

// probeCertificate returns one for the probe alone.
func probeCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// probeTimeout bounds each case: a peer that waits for a record fails.
const probeTimeout = 10 * time.Second

func probeMove(cert tls.Certificate, version, id uint16, s suite, chacha func(key []byte) (cipher.AEAD, error)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	near, far := net.Pipe()
	defer near.Close() // ends the goroutines, with the other
	defer far.Close()  // a pipe
	deadline := time.Now().Add(probeTimeout)
	_ = near.SetDeadline(deadline) // a pipe
	_ = far.SetDeadline(deadline)  // a pipe
	cfg := &Config{ChaCha20Poly1305: chacha, TLS: &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version, CipherSuites: []uint16{id},
	}}
	cfg.once.Do(func() { cfg.base = tapped(cfg.TLS) }) // no probe within the probe

	var peer io.ReadWriter
	shaken := make(chan error, 1)
	wg.Go(func() { // ends with its handshake
		var err error
		if version == tls.VersionTLS13 {
			var l *layer
			l, err = (&client{Conn: far, suite: s}).handshake(id)
			peer = ends{l}
		} else {
			tc := tls.Client(far, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, CipherSuites: []uint16{id}})
			err = tc.Handshake()
			peer = tc
		}
		shaken <- err
		if err == nil {
			_, _ = io.Copy(peer, peer) // the exchange reports errors
		}
	})
	c, err := serve(context.Background(), near, cfg)
	if err != nil {
		_ = near.Close() // ends the client
		return fmt.Errorf("handshake: %w; client: %w", err, <-shaken)
	}
	if err := <-shaken; err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if st := c.ConnectionState(); st.Version != version || st.CipherSuite != id {
		return fmt.Errorf("crypto/tls has chosen %s of %s", tls.CipherSuiteName(st.CipherSuite), tls.VersionName(st.Version))
	}
	return probeExchange(c, &wg)
}

// probeExchange moves c twice, and has its peer return what it gets.
func probeExchange(c *Conn, wg *sync.WaitGroup) error {
	for move := range 3 {
		for size := range 3 {
			data := bytes.Repeat([]byte{byte('a' + move)}, 1+size*maxPlain)
			wrote := make(chan error, 1)
			writer := c
			wg.Go(func() { // ends with the pipe
				_, err := writer.Write(data)
				wrote <- err
			})
			got := make([]byte, len(data))
			if n, err := io.ReadFull(c, got); err != nil {
				return fmt.Errorf("after %d moves, %d of %d bytes come back: %w", move, n, len(got), err)
			}
			if err := <-wrote; err != nil {
				return fmt.Errorf("after %d moves: %w", move, err)
			}
			if !bytes.Equal(got, data) {
				return errors.New("other data comes back")
			}
		}
		if move == 2 {
			return nil
		}
		if err := c.canMoveLocked(true); err != nil {
			return err
		}
		next, _, err := receive(handoff.MovedConn{Conn: c.raw, State: c.moving().encode(nil)}, c.cfg)
		if err != nil {
			return err
		}
		c = next
	}
	return nil
}

// ends is a layer as an io.ReadWriter.
type ends struct{ l *layer }

func (e ends) Read(p []byte) (int, error)  { return e.l.read(p) }
func (e ends) Write(p []byte) (int, error) { return e.l.write(p) }
