package handofftls

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// sequence returns crypto/tls's own sequence number of one direction, by reflection.
func sequence(tc *tls.Conn, direction string) uint64 {
	v := reflect.ValueOf(tc).Elem().FieldByName(direction).FieldByName("seq")
	var b [8]byte
	for i := range b {
		b[i] = byte(v.Index(i).Uint())
	}
	return binary.BigEndian.Uint64(b[:])
}

// TestCounts compares the sequence numbers and secrets that would move with crypto/tls's
// own, after random traffic.
func TestCounts(t *testing.T) {
	t.Parallel()
	for i := range testenv.Times(60, 300) {
		rng := rand.New(rand.NewPCG(2, uint64(i)))
		version := uint16(tls.VersionTLS13)
		if rng.IntN(3) == 0 {
			version = tls.VersionTLS12
		}
		cfg := plain()
		cfg.once.Do(func() { cfg.base = tapped(cfg.TLS) }) // the probe is another test's
		cfg.TLS.MaxVersion, cfg.TLS.SessionTicketsDisabled, cfg.TLS.DynamicRecordSizingDisabled = version, rng.IntN(2) == 0, rng.IntN(2) == 0
		if rng.IntN(2) == 0 {
			cfg.TLS.ClientAuth = tls.RequireAnyClientCert
		}
		tc, c := establish(t, cfg, &tls.Config{
			InsecureSkipVerify: true, Certificates: []tls.Certificate{ecdsaCertificate()}, ClientSessionCache: tls.NewLRUClientSessionCache(1),
		})
		for range rng.IntN(20) {
			data := make([]byte, 1+rng.IntN(1<<rng.IntN(18)))
			if rng.IntN(2) == 0 {
				exchange(t, tc, c, data)
			} else {
				exchange(t, c, tc, data)
			}
			if rng.IntN(4) == 0 {
				silence(t, c)
			}
		}
		if err := c.CanMove(); err != nil {
			t.Fatal(err)
		}
		m := c.moving()
		if in, out := sequence(c.tc, "in"), sequence(c.tc, "out"); m.inSeq != in || m.outSeq != out {
			t.Fatalf("%s: sequence numbers %d and %d, crypto/tls has %d and %d", tls.VersionName(version), m.inSeq, m.outSeq, in, out)
		}
		if version == tls.VersionTLS13 {
			secret := func(direction string) []byte {
				return reflect.ValueOf(c.tc).Elem().FieldByName(direction).FieldByName("trafficSecret").Bytes()
			}
			if !bytes.Equal(m.in, secret("in")) || !bytes.Equal(m.out, secret("out")) {
				t.Fatal("other secrets than crypto/tls's")
			}
		}
		c = move(t, c)
		both(t, tc, c, "moved")
		_ = tc.Close()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("Read() = %d, %v, want io.EOF", n, err)
		}
	}
}
