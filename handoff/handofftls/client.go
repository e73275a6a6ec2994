package handofftls

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// A client is one of TLS 1.3 that offers a single cipher suite, for the probe: that of
// crypto/tls offers them all. It does not authenticate the server.
type client struct {
	net.Conn
	suite      suite
	transcript bytes.Buffer
	in, out    half
}

// handshake makes a handshake and returns the record layer for the client's end.
func (c *client) handshake(id uint16) (*layer, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := c.hello(id, key.PublicKey().Bytes()); err != nil {
		return nil, err
	}
	share, err := c.serverHello()
	if err != nil {
		return nil, err
	}
	peer, err := ecdh.X25519().NewPublicKey(share)
	if err != nil {
		return nil, err
	}
	shared, err := key.ECDH(peer)
	if err != nil {
		return nil, err
	}
	return c.finish(shared)
}

// hello sends ClientHello (RFC 8446 section 4.1.2), with the extensions that a server
// requires.
func (c *client) hello(id uint16, share []byte) error {
	extension := func(typ uint16, body ...byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, typ)
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		return append(b, body...)
	}
	const x25519, ecdsaP256 = 29, 0x0403
	ext := extension(43, 2, 3, 4)                                           // supported_versions
	ext = append(ext, extension(10, 0, 2, 0, x25519)...)                    // supported_groups
	ext = append(ext, extension(13, 0, 2, ecdsaP256>>8, ecdsaP256&0xff)...) // signature_algorithms
	ext = append(ext, extension(45, 1, 1)...)                               // psk_key_exchange_modes: the server sends tickets
	n := byte(len(share))
	ext = append(ext, extension(51, append([]byte{0, n + 4, 0, x25519, 0, n}, share...)...)...)
	b := append([]byte{3, 3}, make([]byte, 33)...) // random, no session ID
	_, _ = rand.Read(b[2:34])                      // it never fails (Go 1.24)
	b = append(b, 0, 2, byte(id>>8), byte(id), 1, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(ext)))
	b = append(b, ext...)
	m := append([]byte{1, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	c.transcript.Write(m)
	_, err := c.Write(append([]byte{typeHandshake, 3, 1, byte(len(m) >> 8), byte(len(m))}, m...))
	return err
}

var errProbeServer = errors.New("crypto/tls answers with a message that this package does not know")

// serverHello returns the server's share of the key.
func (c *client) serverHello() ([]byte, error) {
	record, err := c.record()
	if err != nil {
		return nil, err
	}
	m := record[recordHeader:]
	if record[0] != typeHandshake || len(m) < 4+2+32+1 || m[0] != 2 {
		return nil, errProbeServer
	}
	c.transcript.Write(m)
	ext := m[4+2+32+1+int(m[38]):]
	for ext = ext[min(len(ext), 2+1+2):]; len(ext) >= 4; {
		n := int(ext[2])<<8 | int(ext[3])
		if 4+n > len(ext) {
			break
		}
		if ext[0] == 0 && ext[1] == 51 && n > 4 { // key_share: the group, a length
			return ext[8 : 4+n], nil
		}
		ext = ext[4+n:]
	}
	return nil, errProbeServer
}

// finish reads the server's flight and answers it.
func (c *client) finish(shared []byte) (*layer, error) {
	k := schedule{client: c}
	early := k.extract(make([]byte, c.suite.hashSize), nil)
	secret := k.extract(shared, k.secret(early, "derived", nil))
	clientSecret, serverSecret := k.traffic(secret, "c hs traffic"), k.traffic(secret, "s hs traffic")
	c.out, c.in = k.half(clientSecret), k.half(serverSecret)
	master := k.extract(make([]byte, c.suite.hashSize), k.secret(secret, "derived", nil))
	if k.err != nil {
		return nil, k.err
	}
	for flight := []byte(nil); ; {
		for len(flight) >= 4 {
			n := 4 + int(flight[1])<<16 + int(flight[2])<<8 + int(flight[3])
			if n > len(flight) {
				break
			}
			c.transcript.Write(flight[:n])
			if flight[0] == 20 { // Finished
				return c.finished(&k, clientSecret, master)
			}
			flight = flight[n:]
		}
		record, err := c.record()
		if err != nil {
			return nil, err
		}
		if record[0] == typeChangeCipherSpec {
			continue
		}
		typ, data, err := c.in.open(record)
		if err != nil || typ != typeHandshake {
			return nil, errors.Join(errProbeServer, err)
		}
		flight = append(flight, data...)
	}
}

// finished sends Finished, reads a session ticket, and goes to the application's keys.
func (c *client) finished(k *schedule, clientSecret, master []byte) (*layer, error) {
	l := &layer{raw: c.Conn, version: tls.VersionTLS13}
	l.out, l.in = k.half(k.traffic(master, "c ap traffic")), k.half(k.traffic(master, "s ap traffic"))
	mac := hmac.New(c.suite.hash, k.expand(clientSecret, "finished", nil))
	mac.Write(k.sum())
	verify := mac.Sum(nil)
	b, err := c.out.seal(nil, typeHandshake, append([]byte{20, 0, 0, byte(len(verify))}, verify...))
	if err := errors.Join(k.err, err); err != nil {
		return nil, err
	}
	record, err := c.record() // the server sends the ticket with its Finished
	if err != nil {
		return nil, err
	}
	if typ, data, err := l.in.open(record); err != nil || typ != typeHandshake || data[0] != 4 {
		return nil, errors.Join(errProbeServer, err)
	}
	_, err = c.Write(b)
	return l, err
}

// record reads one record.
func (c *client) record() ([]byte, error) {
	b := make([]byte, recordHeader)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	b = append(b, make([]byte, int(b[3])<<8|int(b[4]))...)
	_, err := io.ReadFull(c, b[recordHeader:])
	return b, err
}

// schedule is the key schedule of TLS 1.3 (RFC 8446 section 7.1), without a PSK. It keeps
// its first error.
type schedule struct {
	client *client
	err    error
}

func (k *schedule) note(err error) { k.err = errors.Join(k.err, err) }

// sum returns the hash of the transcript so far.
func (k *schedule) sum() []byte { return k.hash(k.client.transcript.Bytes()) }

func (k *schedule) hash(b []byte) []byte {
	h := k.client.suite.hash()
	h.Write(b)
	return h.Sum(nil)
}

func (k *schedule) extract(secret, salt []byte) []byte {
	b, err := hkdf.Extract(k.client.suite.hash, secret, salt)
	k.note(err)
	return b
}

func (k *schedule) expand(secret []byte, label string, context []byte) []byte {
	b, err := expandLabel(k.client.suite.hash, secret, label, context, k.client.suite.hashSize)
	k.note(err)
	return b
}

// secret is Derive-Secret.
func (k *schedule) secret(secret []byte, label string, messages []byte) []byte {
	return k.expand(secret, label, k.hash(messages))
}

func (k *schedule) traffic(secret []byte, label string) []byte {
	return k.secret(secret, label, k.client.transcript.Bytes())
}

func (k *schedule) half(secret []byte) half {
	h, err := newHalf(tls.VersionTLS13, k.client.suite, secret, 0)
	k.note(err)
	return h
}
