package handofftls

import (
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"math"
)

// A half protects the records of one direction.
type half struct {
	version uint16
	suite   suite
	secret  []byte // the traffic secret (TLS 1.3), or key and IV
	seq     uint64 // of the next record
	aead    cipher.AEAD
	iv      [12]byte
}

// newHalf owns secret.
func newHalf(version uint16, s suite, secret []byte, seq uint64) (half, error) {
	h := half{version: version, suite: s, secret: secret, seq: seq}
	return h, h.setup()
}

func (h *half) setup() error {
	if len(h.secret) != h.suite.secretSize(h.version) {
		return ErrState
	}
	key, iv := h.secret[:min(h.suite.keySize, len(h.secret))], h.secret[min(h.suite.keySize, len(h.secret)):]
	if h.version == tls.VersionTLS13 {
		var err error
		if key, err = expandLabel(h.suite.hash, h.secret, "key", nil, h.suite.keySize); err != nil {
			return err
		}
		if iv, err = expandLabel(h.suite.hash, h.secret, "iv", nil, h.suite.ivSize); err != nil {
			return err
		}
		defer clear(key)
	}
	h.iv = [12]byte{}
	copy(h.iv[:], iv)
	var err error
	h.aead, err = h.suite.aead(key)
	return err
}

// update goes to the next traffic secret (RFC 8446 section 7.2).
func (h *half) update() error {
	s, err := expandLabel(h.suite.hash, h.secret, "traffic upd", nil, len(h.secret))
	if err != nil {
		return err
	}
	clear(h.secret)
	h.secret, h.seq = s, 0
	return h.setup()
}

// forget clears the secrets that can be reached.
func (h *half) forget() {
	clear(h.secret)
	h.iv, h.aead = [12]byte{}, nil
}

// nonce returns that of the current record.
func (h *half) nonce(explicit []byte) (n [12]byte) {
	n = h.iv
	if h.suite.explicit > 0 {
		copy(n[len(n)-h.suite.explicit:], explicit)
		return n
	}
	var s [8]byte
	binary.BigEndian.PutUint64(s[:], h.seq)
	for i, b := range s {
		n[4+i] ^= b
	}
	return n
}

// additional returns the additional data of a record of TLS 1.2 with n bytes of data.
func (h *half) additional(typ byte, n int) (ad [13]byte) {
	binary.BigEndian.PutUint64(ad[:], h.seq)
	ad[8], ad[9], ad[10] = typ, 3, 3
	binary.BigEndian.PutUint16(ad[11:], uint16(n))
	return ad
}

var (
	errMAC     = errors.New("handofftls: a record is not what its sender has sent")
	errNoType  = errors.New("handofftls: a record has no type")
	errTooLong = errors.New("handofftls: a record is too long")
	errSpent   = errors.New("handofftls: all sequence numbers are used")
)

// open decrypts a record, header included, in place.
func (h *half) open(record []byte) (typ byte, data []byte, err error) {
	if h.seq == math.MaxUint64 {
		return 0, nil, errSpent
	}
	body := record[recordHeader:]
	if len(body) < h.suite.explicit+tagSize {
		return 0, nil, errMAC
	}
	nonce := h.nonce(body[:h.suite.explicit])
	body = body[h.suite.explicit:]
	additional := record[:recordHeader]
	if h.version != tls.VersionTLS13 {
		ad := h.additional(record[0], len(body)-tagSize)
		additional = ad[:]
	}
	data, err = h.aead.Open(body[:0], nonce[:], body, additional)
	if err != nil {
		return 0, nil, errMAC
	}
	h.seq++
	if h.version != tls.VersionTLS13 {
		if len(data) > maxPlain {
			return 0, nil, errTooLong
		}
		return record[0], data, nil
	}
	if len(data) > maxPlain+1 {
		return 0, nil, errTooLong
	}
	for i := len(data) - 1; i >= 0; i-- {
		if data[i] != 0 { // what follows is padding
			return data[i], data[:i], nil
		}
	}
	return 0, nil, errNoType
}

// seal appends a record to b. It uses a sequence number in any case.
func (h *half) seal(b []byte, typ byte, data []byte) ([]byte, error) {
	if h.seq == math.MaxUint64 {
		return nil, errSpent
	}
	at := len(b)
	if h.version == tls.VersionTLS13 {
		n := len(data) + 1 + tagSize
		b = append(b, typeData, 3, 3, byte(n>>8), byte(n))
		b = append(append(b, data...), typ)
		nonce := h.nonce(nil)
		h.seq++
		return h.aead.Seal(b[:at+recordHeader], nonce[:], b[at+recordHeader:], b[at:at+recordHeader]), nil
	}
	n := h.suite.explicit + len(data) + tagSize
	b = append(b, typ, 3, 3, byte(n>>8), byte(n))
	var explicit [8]byte
	binary.BigEndian.PutUint64(explicit[:], h.seq) // as crypto/tls does: never twice
	b = append(b, explicit[:h.suite.explicit]...)
	from := len(b)
	b = append(b, data...)
	ad := h.additional(typ, len(data))
	nonce := h.nonce(explicit[:])
	h.seq++
	return h.aead.Seal(b[:from], nonce[:], b[from:], ad[:]), nil
}
