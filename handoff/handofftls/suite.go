package handofftls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"hash"
)

// tagSize is that of all AEADs here.
const tagSize = 16

// A suite has what a cipher suite needs for its records. All are AEADs.
type suite struct {
	hash     func() hash.Hash
	hashSize int
	keySize  int
	ivSize   int // of the part of the nonce that is derived: in TLS 1.2 with GCM it is the salt
	explicit int // bytes of the nonce that a record has itself
	aead     func(key []byte) (cipher.AEAD, error)
}

// suiteOf returns what the cipher suite id needs in a version, and false for one whose
// connections don't move: RC4, CBC, a static RSA key exchange.
func suiteOf(version, id uint16, chacha func(key []byte) (cipher.AEAD, error)) (suite, bool) {
	var s suite
	switch version {
	case tls.VersionTLS13:
		switch id {
		case tls.TLS_AES_128_GCM_SHA256:
			s = suite{sha256.New, sha256.Size, 16, 12, 0, gcm}
		case tls.TLS_AES_256_GCM_SHA384:
			s = suite{sha512.New384, sha512.Size384, 32, 12, 0, gcm}
		case tls.TLS_CHACHA20_POLY1305_SHA256:
			s = suite{sha256.New, sha256.Size, 32, 12, 0, chacha}
		}
	case tls.VersionTLS12:
		switch id {
		case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:
			s = suite{sha256.New, sha256.Size, 16, 4, 8, gcm}
		case tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:
			s = suite{sha512.New384, sha512.Size384, 32, 4, 8, gcm}
		case tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
			s = suite{sha256.New, sha256.Size, 32, 12, 0, chacha}
		}
	}
	return s, s.aead != nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// overhead is what a record's body has beside its data: the nonce, the tag, and in TLS
// 1.3 the type.
func (s suite) overhead(version uint16) uint64 {
	n := s.explicit + tagSize
	if version == tls.VersionTLS13 {
		n++
	}
	return uint64(n)
}

// secretSize is the length of what a half keeps: a traffic secret in TLS 1.3, or else
// key and IV.
func (s suite) secretSize(version uint16) int {
	if version == tls.VersionTLS13 {
		return s.hashSize
	}
	return s.keySize + s.ivSize
}

// expandLabel is HKDF-Expand-Label (RFC 8446 section 7.1).
func expandLabel(h func() hash.Hash, secret []byte, label string, context []byte, n int) ([]byte, error) {
	b := binary.BigEndian.AppendUint16(nil, uint16(n))
	b = append(b, byte(len("tls13 ")+len(label)))
	b = append(b, "tls13 "+label...)
	b = append(b, byte(len(context)))
	return hkdf.Expand(h, secret, string(append(b, context...)), n)
}

// prf is the PRF of TLS 1.2 (RFC 5246 section 5).
func prf(h func() hash.Hash, secret []byte, label string, seed []byte, n int) []byte {
	seed = append([]byte(label), seed...)
	mac := hmac.New(h, secret)
	sum := func(parts ...[]byte) []byte {
		mac.Reset()
		for _, p := range parts {
			mac.Write(p)
		}
		return mac.Sum(nil)
	}
	var out []byte
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:n]
}
