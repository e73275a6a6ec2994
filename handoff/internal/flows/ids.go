package flows

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Limits of what the first process chooses.
const (
	MinLanes     = 3 // that of the process that serves, its successor's, and a predecessor's
	DefaultLanes = 8
	MaxLanes     = 32

	minIDLen = 3
	maxIDLen = 64
	maxForms = 8
	maxAt    = 1024
)

// IDs says where a datagram has the ID of its flow, if the server has chosen that.
type IDs struct {
	// Len is the length in bytes of each ID that the server chooses.
	Len int `json:"len"`
	// Forms are the kinds of datagrams. The first that fits counts.
	Forms []Form `json:"forms"`
}

// A Form is one kind of datagram.
type Form struct {
	// A datagram has this form if its first byte, masked by Mask, is Value.
	Mask  byte `json:"mask"`
	Value byte `json:"value"`
	// LenAt is the offset of a byte that has the length of the ID. IDs of another length
	// are the clients'. Zero means that each datagram of this form has an ID of the server's.
	LenAt int `json:"len_at,omitempty"`
	// At is the offset of the ID.
	At int `json:"at"`
}

// check reports what is wrong with a description; no form is right.
func (d *IDs) check() error {
	if len(d.Forms) == 0 {
		return nil
	}
	if d.Len < minIDLen || d.Len > maxIDLen || len(d.Forms) > maxForms {
		return fmt.Errorf("IDs of %d bytes in %d forms: %d to %d bytes and up to %d forms are possible", d.Len, len(d.Forms), minIDLen, maxIDLen, maxForms)
	}
	for _, f := range d.Forms {
		if f.At < 0 || f.At > maxAt || f.LenAt < 0 || f.LenAt > maxAt || f.Value&^f.Mask != 0 {
			return fmt.Errorf("form %+v: the offsets can be 0 to %d, and Value only has bits of Mask", f, maxAt)
		}
	}
	return nil
}

// end returns the least length of a datagram of form f that has an ID.
func (d *IDs) end(f Form) int { return max(f.At+d.Len, f.LenAt+1) }

// A key makes the tags of IDs: the first byte, XORed with a hash of those that follow, is
// a number of the lane. That is no encryption: an observer of many IDs can
// compute the key, and then knows which IDs have the same lane, and can choose a lane.
type key struct {
	Mul   uint32 `json:"mul"`   // odd
	Magic byte   `json:"magic"` // the bits of a tag that are not the lane's
}

func newKey() key {
	var b [5]byte
	rand.Read(b[:])
	return key{binary.BigEndian.Uint32(b[:]) | 1, b[4]}
}

// tag is that of a lane among n.
func (k key) tag(lane, n int) byte {
	width := bits.Len(uint(n - 1))
	return k.Magic<<width | byte(lane)
}

// mask is what the first byte of id is XORed with.
func (k key) mask(id []byte) byte {
	h := uint32(binary.BigEndian.Uint16(id[1:]))
	if len(id) >= 5 {
		h = binary.BigEndian.Uint32(id[1:])
	}
	return byte(h * k.Mul >> 24)
}

var errIDLen = errors.New("the ID has another length than IDs.Len")

// mark makes id, which is random, one of a lane among n.
func (k key) mark(id []byte, lane, n int) { id[0] = k.tag(lane, n) ^ k.mask(id) }

// lane returns the lane of a datagram among n by its ID, or -1.
func (k key) lane(d *IDs, p []byte, n int) int {
	for _, f := range d.Forms {
		if len(p) == 0 || p[0]&f.Mask != f.Value {
			continue
		}
		if len(p) < d.end(f) || f.LenAt > 0 && int(p[f.LenAt]) != d.Len {
			return -1
		}
		id := p[f.At : f.At+d.Len]
		for l := range n {
			if id[0]^k.mask(id) == k.tag(l, n) {
				return l
			}
		}
		return -1
	}
	return -1
}
