package handofftls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"sync"
)

// stateFormat begins the encoding of a moving connection. It is in the name under which
// connections move, too: another format is another name.
const stateFormat = 1

// Flags of the encoding.
const (
	flagResumed = 1 << iota
	flagRetried
	flagECH
	flagsAll = flagResumed | flagRetried | flagECH
)

// A moving connection is what its successor needs to know. It has the keys of the
// connection.
type moving struct {
	version, suite uint16
	in, out        []byte // a half's secrets
	inSeq, outSeq  uint64
	state          *tls.ConnectionState
}

// encode returns the format, numbers of fixed size, then texts and lists with their
// lengths as uvarints, then what the user has for the successor. Certificates are there
// once, and chains refer to them.
func (m *moving) encode(user []byte) []byte {
	st := m.state
	// No growth: an array that is left behind would still have the secrets.
	b := make([]byte, 0, 128+len(m.in)+len(m.out)+certificateBytes(st)+len(user))
	b = append(b, stateFormat)
	b = binary.BigEndian.AppendUint16(b, m.version)
	b = binary.BigEndian.AppendUint16(b, m.suite)
	b = binary.BigEndian.AppendUint16(b, uint16(st.CurveID))
	var flags byte
	if st.DidResume {
		flags |= flagResumed
	}
	if retried(st) {
		flags |= flagRetried
	}
	if st.ECHAccepted {
		flags |= flagECH
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, m.inSeq)
	b = binary.BigEndian.AppendUint64(b, m.outSeq)
	for _, field := range [][]byte{m.in, m.out, []byte(st.NegotiatedProtocol), []byte(st.ServerName), st.TLSUnique, st.OCSPResponse} {
		b = appendBytes(b, field)
	}
	b = binary.AppendUvarint(b, uint64(len(st.SignedCertificateTimestamps)))
	for _, sct := range st.SignedCertificateTimestamps {
		b = appendBytes(b, sct)
	}
	index := make(map[string]uint64)
	var all []*x509.Certificate
	note := func(chain []*x509.Certificate) {
		for _, c := range chain {
			if _, known := index[string(c.Raw)]; !known {
				index[string(c.Raw)] = uint64(len(all))
				all = append(all, c)
			}
		}
	}
	note(st.PeerCertificates)
	for _, chain := range st.VerifiedChains {
		note(chain)
	}
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, c := range all {
		b = appendBytes(b, c.Raw)
	}
	chain := func(chain []*x509.Certificate) {
		b = binary.AppendUvarint(b, uint64(len(chain)))
		for _, c := range chain {
			b = binary.AppendUvarint(b, index[string(c.Raw)])
		}
	}
	chain(st.PeerCertificates)
	b = binary.AppendUvarint(b, uint64(len(st.VerifiedChains)))
	for _, c := range st.VerifiedChains {
		chain(c)
	}
	return append(b, user...)
}

func appendBytes(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

// certificateBytes returns no less than encode needs for what has no fixed size.
func certificateBytes(st *tls.ConnectionState) int {
	n := len(st.NegotiatedProtocol) + len(st.ServerName) + len(st.TLSUnique) + len(st.OCSPResponse)
	for _, sct := range st.SignedCertificateTimestamps {
		n += len(sct) + binary.MaxVarintLen64
	}
	count := func(chain []*x509.Certificate) {
		n += binary.MaxVarintLen64
		for _, c := range chain {
			n += len(c.Raw) + 2*binary.MaxVarintLen64
		}
	}
	count(st.PeerCertificates)
	for _, chain := range st.VerifiedChains {
		count(chain)
	}
	return n
}

// decode is the reverse of encode. The secrets are copies; user is a part of b.
func decode(b []byte) (m *moving, user []byte, err error) {
	d := decoder{b: b}
	if format := d.fixed(1)[0]; format != stateFormat {
		return nil, nil, fmt.Errorf("%w: format %d", ErrState, format)
	}
	st := emptyState()
	m = &moving{state: st}
	defer func() {
		if err != nil {
			clear(m.in)
			clear(m.out)
			m = nil
		}
	}()
	m.version = binary.BigEndian.Uint16(d.fixed(2))
	m.suite = binary.BigEndian.Uint16(d.fixed(2))
	st.CurveID = tls.CurveID(binary.BigEndian.Uint16(d.fixed(2)))
	flags := d.fixed(1)[0]
	d.bad = d.bad || flags&^flagsAll != 0
	m.inSeq = binary.BigEndian.Uint64(d.fixed(8))
	m.outSeq = binary.BigEndian.Uint64(d.fixed(8))
	m.in, m.out = d.bytes(), d.bytes()
	st.NegotiatedProtocol, st.ServerName = string(d.bytes()), string(d.bytes())
	st.TLSUnique, st.OCSPResponse = d.bytes(), d.bytes()
	for range d.length() {
		st.SignedCertificateTimestamps = append(st.SignedCertificateTimestamps, d.bytes())
	}
	certs := make([]*x509.Certificate, d.length())
	for i := range certs {
		if certs[i], err = x509.ParseCertificate(d.bytes()); err != nil {
			return m, nil, fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	st.PeerCertificates = d.chain(certs)
	for range d.length() {
		st.VerifiedChains = append(st.VerifiedChains, d.chain(certs))
	}
	if d.bad {
		return m, nil, ErrState
	}
	st.Version, st.CipherSuite = m.version, m.suite
	st.HandshakeComplete, st.DidResume, st.ECHAccepted = true, flags&flagResumed != 0, flags&flagECH != 0
	//lint:ignore SA1019 crypto/tls still sets it
	st.NegotiatedProtocolIsMutual = true
	setRetried(st, flags&flagRetried != 0)
	return m, d.b, nil
}

// emptyState returns a state whose ExportKeyingMaterial returns an error. That of the zero
// value panics. The secret that it needs is not known.
func emptyState() *tls.ConnectionState {
	st := unshaken()
	return &st
}

// unshaken returns the state of a connection without a handshake: for all one, because a
// tls.Conn and its tls.Config are the larger part of what a move allocates.
var unshaken = sync.OnceValue(func() tls.ConnectionState {
	return tls.Server(nil, &tls.Config{Renegotiation: tls.RenegotiateOnceAsClient}).ConnectionState()
})

// A decoder reads what encode has written. After an error it returns zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fixed(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return make([]byte, n)
	}
	field := d.b[:n]
	d.b = d.b[n:]
	return field
}

func (d *decoder) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || v > most {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns a copy, nil if it is empty.
func (d *decoder) bytes() []byte {
	n := d.uvarint(uint64(len(d.b)))
	if n == 0 {
		return nil
	}
	return append([]byte(nil), d.fixed(int(n))...)
}

// length returns that of a list, each of whose elements has at least a byte. A client
// chooses how many certificates it has, so there is no other limit.
func (d *decoder) length() int { return int(d.uvarint(uint64(len(d.b)))) }

func (d *decoder) chain(certs []*x509.Certificate) (chain []*x509.Certificate) {
	for range d.length() {
		i := d.uvarint(uint64(len(certs)))
		if d.bad || i >= uint64(len(certs)) {
			d.bad = true
			return nil
		}
		chain = append(chain, certs[i])
	}
	return chain
}
