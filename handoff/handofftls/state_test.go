package handofftls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
)

// sample returns the state of a connection with all that a state can have.
func sample() *moving {
	st := emptyState()
	st.Version, st.CipherSuite, st.CurveID = tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, tls.X25519MLKEM768
	st.HandshakeComplete, st.DidResume, st.ECHAccepted = true, true, true
	//lint:ignore SA1019 crypto/tls still sets it
	st.NegotiatedProtocolIsMutual = true
	setRetried(st, true)
	st.NegotiatedProtocol, st.ServerName, st.TLSUnique = "http/1.1", "host.example", []byte("unique")
	st.OCSPResponse, st.SignedCertificateTimestamps = []byte("ocsp"), [][]byte{[]byte("one"), []byte("two")}
	a, b := ecdsaCertificate().Leaf, otherCertificate().Leaf
	st.PeerCertificates, st.VerifiedChains = []*x509.Certificate{a, b}, [][]*x509.Certificate{{a}, {a, b}}
	return &moving{
		version: st.Version, suite: st.CipherSuite, state: st, inSeq: 1 << 40, outSeq: math.MaxUint64,
		in: bytes.Repeat([]byte{1}, 32), out: bytes.Repeat([]byte{2}, 32),
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	m := sample()
	b := m.encode([]byte("the user's"))
	if cap(b) > 4*len(b) {
		t.Errorf("%d bytes in an array of %d", len(b), cap(b))
	}
	got, user, err := decode(b)
	if err != nil || string(user) != "the user's" {
		t.Fatalf("decode() = %q, %v", user, err)
	}
	if diff := sameState(*got.state, *m.state); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.version != m.version || got.suite != m.suite || got.inSeq != m.inSeq || got.outSeq != m.outSeq || !bytes.Equal(got.in, m.in) || !bytes.Equal(got.out, m.out) {
		t.Errorf("decode() = %+v, want %+v", got, m)
	}
	// Where the state of the user begins, anything is right; before, each byte is missed.
	for n := range len(b) - len(user) {
		if _, _, err := decode(b[:n]); !errors.Is(err, ErrState) {
			t.Fatalf("decode() of %d of %d bytes = %v, want ErrState", n, len(b), err)
		}
	}
	for _, change := range []func(b []byte){
		func(b []byte) { b[0]++ },      // the format
		func(b []byte) { b[7] = 0x80 }, // a flag
	} {
		odd := bytes.Clone(b)
		change(odd)
		if _, _, err := decode(odd); !errors.Is(err, ErrState) {
			t.Errorf("decode(%x...) = %v, want ErrState", odd[:8], err)
		}
	}
}

// TestReceiveMalformed has a successor receive what no predecessor sends.
func TestReceiveMalformed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(m *moving){
		"secret too short":   func(m *moving) { m.in = m.in[:31] },
		"secret too long":    func(m *moving) { m.out = append(m.out, 0) },
		"no secret":          func(m *moving) { m.out = nil },
		"another suite":      func(m *moving) { m.suite = tls.TLS_RSA_WITH_AES_128_CBC_SHA },
		"another version":    func(m *moving) { m.version = tls.VersionTLS11 },
		"suite of 1.2":       func(m *moving) { m.suite = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 },
		"ChaCha20, and none": func(m *moving) { m.suite = tls.TLS_CHACHA20_POLY1305_SHA256 },
	} {
		m := sample()
		change(m)
		mc := handoff.MovedConn{State: m.encode(nil)}
		if _, _, err := Receive(mc, &Config{}); !errors.Is(err, ErrState) {
			t.Errorf("%s: Receive() = %v, want ErrState", name, err)
		}
		if !bytes.Equal(mc.State, make([]byte, len(mc.State))) {
			t.Errorf("%s: the state is not cleared", name)
		}
	}
}

// TestWrongSequence gives a successor another sequence number than the client's: the first
// record ends the connection, and no data is read.
func TestWrongSequence(t *testing.T) {
	t.Parallel()
	tc, c := establish(t, plain(), insecure)
	both(t, tc, c, "before")
	if err := c.canMoveLocked(true); err != nil {
		t.Fatal(err)
	}
	m := c.moving()
	m.inSeq++
	next, _, err := Receive(handoff.MovedConn{Conn: c.raw, State: m.encode(nil)}, c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := next.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errMAC) {
		t.Errorf("Read() = %d, %v, want errMAC", n, err)
	}
	if n, err := next.Write([]byte("x")); n != 0 || !errors.Is(err, errMAC) {
		t.Errorf("Write() after the alert = %d, %v, want errMAC", n, err)
	}
	var alert *net.OpError
	if _, err := tc.Read(make([]byte, 1)); !errors.As(err, &alert) || alert.Op != "remote error" {
		t.Errorf("the client reads %v, want an alert", err)
	}
}

// TestSpent has sequence numbers end: nothing more is sent or read.
func TestSpent(t *testing.T) {
	t.Parallel()
	s, _ := suiteOf(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, nil)
	h, err := newHalf(tls.VersionTLS13, s, make([]byte, 32), math.MaxUint64-1)
	if err != nil {
		t.Fatal(err)
	}
	last, err := h.seal(nil, typeData, []byte("last"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := h.seal(nil, typeData, []byte("x")); !errors.Is(err, errSpent) || b != nil {
		t.Errorf("seal() = %x, %v, want errSpent", b, err)
	}
	if _, _, err := h.open(last); !errors.Is(err, errSpent) {
		t.Errorf("open() = %v, want errSpent", err)
	}
}

// FuzzState decodes what a predecessor may send.
func FuzzState(f *testing.F) {
	f.Add(sample().encode([]byte("user")))
	m := sample()
	m.state = emptyState()
	f.Add(m.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, user, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrState) || m != nil {
				t.Fatalf("decode() = %v, %v", m, err)
			}
			return
		}
		again, rest, err := decode(m.encode(user))
		if err != nil || !bytes.Equal(rest, user) || again.inSeq != m.inSeq || !bytes.Equal(again.in, m.in) || sameState(*again.state, *m.state) != "" {
			t.Errorf("a second round: %v", err)
		}
	})
}

// FuzzFramer counts records that arrive in pieces of any size.
func FuzzFramer(f *testing.F) {
	f.Add([]byte("\x17\x03\x03\x00\x03abc\x17\x03\x03\x00\x00\x15\x03\x03\x00\x02ab\x17\x03"), uint16(3), uint16(9))
	f.Add([]byte(nil), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, first, second uint16) {
		var whole, pieces framer
		whole.pass(b)
		i, j := min(int(first), len(b)), min(int(second), len(b))
		i, j = min(i, j), max(i, j)
		pieces.pass(b[:i])
		pieces.pass(b[i:j])
		pieces.pass(b[j:])
		if pieces != whole {
			t.Errorf("in pieces %+v, whole %+v", pieces, whole)
		}
		if n := whole.want(); n <= 0 || n > 1<<16 {
			t.Errorf("want() = %d", n)
		}
	})
}
