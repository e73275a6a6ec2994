package handofftls

import (
	"bytes"
	"crypto/tls"
	"slices"
)

// keys are what moves of a connection that crypto/tls serves. Their sequence numbers are
// those at the end of the handshake: the framers have counted on since.
type keys struct {
	in, out       []byte
	inSeq, outSeq uint64
	overhead      uint64
}

// keys returns the keys of a connection whose handshake has ended. What crypto/tls has
// sent under them in the handshake is found by decrypting it, which shows that they are
// the right ones.
func (t *tap) keys(st *tls.ConnectionState, cfg *Config) (*keys, error) {
	s, ok := suiteOf(st.Version, st.CipherSuite, cfg.ChaCha20Poly1305)
	if !ok {
		return nil, stays("its cipher suite is %s of %s", tls.CipherSuiteName(st.CipherSuite), tls.VersionName(st.Version))
	}
	k := &keys{overhead: s.overhead(st.Version)}
	if st.Version == tls.VersionTLS13 {
		k.in, k.out = t.logged.in, t.logged.out
	} else {
		k.derive(s, t)
		k.inSeq = 1 // the client's Finished
	}
	if len(k.in) == 0 || len(k.out) == 0 {
		return nil, stays("its keys are not in the key log, as in a session of TLS 1.2 that was resumed")
	}
	out, err := newHalf(st.Version, s, bytes.Clone(k.out), 0)
	if err != nil {
		return nil, stays("its keys: %w", err)
	}
	defer out.forget()
	if st.Version == tls.VersionTLS13 {
		err = tickets13(&out, t.flight)
	} else {
		err = finished12(&out, t.flight)
	}
	k.outSeq = out.seq
	return k, err
}

// derive computes the keys of TLS 1.2 (RFC 5246 section 6.3).
func (k *keys) derive(s suite, t *tap) {
	random := serverRandom(t.flight)
	if len(t.logged.master) == 0 || random == nil {
		return
	}
	seed := slices.Concat(random, t.logged.clientRandom)
	b := prf(s.hash, t.logged.master, "key expansion", seed, 2*(s.keySize+s.ivSize))
	defer clear(b)
	defer clear(t.logged.master)
	ck, sk := b[:s.keySize], b[s.keySize:2*s.keySize]
	iv := b[2*s.keySize:]
	k.in, k.out = slices.Concat(ck, iv[:s.ivSize]), slices.Concat(sk, iv[s.ivSize:])
}

// serverRandom returns that of ServerHello, with which a server of TLS 1.2 begins: a
// header, a type, three bytes of length, two of version.
func serverRandom(flight []byte) []byte {
	const at, size, serverHello = recordHeader + 6, 32, 2
	if len(flight) < at+size || flight[0] != typeHandshake || flight[recordHeader] != serverHello {
		return nil
	}
	return flight[at : at+size]
}

// records calls f for each whole record, with a copy.
func records(flight []byte, f func(record []byte) error) error {
	for len(flight) >= recordHeader {
		n := recordHeader + int(flight[3])<<8 + int(flight[4])
		if n > len(flight) {
			break
		}
		if err := f(bytes.Clone(flight[:n])); err != nil {
			return err
		}
		flight = flight[n:]
	}
	if len(flight) > 0 {
		return stays("crypto/tls has sent a part of a record in the handshake")
	}
	return nil
}

// tickets13 opens the records of the handshake that are under the application keys: session
// tickets, at its end. Those before are under the handshake's keys.
func tickets13(out *half, flight []byte) error {
	return records(flight, func(record []byte) error {
		if record[0] != typeData {
			return nil
		}
		typ, _, err := out.open(record)
		if err != nil && out.seq > 0 || err == nil && typ != typeHandshake {
			return stays("crypto/tls ends the handshake with a record that this package does not know")
		}
		return nil
	})
}

// finished12 opens the one record after change_cipher_spec, Finished.
func finished12(out *half, flight []byte) error {
	changed := false
	err := records(flight, func(record []byte) error {
		if changed {
			if typ, _, err := out.open(record); err != nil || typ != typeHandshake {
				return stays("crypto/tls ends the handshake with a record that this package does not know")
			}
		}
		changed = changed || record[0] == typeChangeCipherSpec
		return nil
	})
	if err == nil && out.seq != 1 {
		err = stays("crypto/tls has sent %d records in place of Finished", out.seq)
	}
	return err
}

func (k *keys) forget() {
	if k != nil {
		clear(k.in)
		clear(k.out)
	}
}
