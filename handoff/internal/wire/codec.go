package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Append appends m's payload to dst and returns the result. It does not check
// limits, see [Check], but it cuts texts and builds that are too long: a long text must
// not keep the message from the peer.
func Append(dst []byte, m Message) []byte {
	c := codec{mode: encode, b: dst}
	m.fields(&c)
	return c.b
}

// Check returns an error that matches [ErrTooLarge] if the peer would refuse m
// for one of the limits. It doesn't know the size of a whole [Conns] message,
// which the sender bounds (see [EntryOverhead]).
func Check(m Message) error {
	c := codec{mode: check}
	m.fields(&c)
	return c.err
}

// Decode returns the message of type t that payload holds. The message does not
// refer to payload. Errors match [ErrUnknownType], [ErrMalformed] or
// [ErrTooLarge].
func Decode(t Type, payload []byte) (Message, error) {
	m := newMessage(t)
	if m == nil {
		return nil, fmt.Errorf("%w: %d", ErrUnknownType, uint16(t))
	}
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrTooLarge, t, len(payload))
	}
	c := codec{mode: decode, b: payload, end: len(payload)}
	if t == TypeSockets {
		// Its values are many and short: one copy of all of them is several
		// times as fast as a thousand small ones.
		c.copied = string(payload)
		c.copiedBytes = bytes.Clone(payload)
	}
	c.next()
	m.fields(&c)
	c.finish()
	if c.err != nil {
		return nil, fmt.Errorf("%w (in %s)", c.err, t)
	}
	return m, nil
}

type mode uint8

const (
	encode mode = iota
	decode
	check
)

// codec walks through the fields of a message, in the order of their tags, and
// writes, reads or checks each.
type codec struct {
	mode mode
	err  error // the first one; no field is touched after it

	b []byte // encode: the output; decode: the whole payload

	// decode: the fields that follow are b[pos:end]. The current one has the
	// value b[from:to] and the tag tag, which is 0 when there is no more.
	pos, end int
	from, to int
	tag      uint64

	// decode, optional: copies of the whole payload, of which the strings and
	// the byte slices of the message become parts.
	copied      string
	copiedBytes []byte
}

func (c *codec) malformed(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
		c.tag = 0
	}
}

func (c *codec) tooLarge(tag uint64, n, limit int) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: field %d has %d, limit %d", ErrTooLarge, tag, n, limit)
		c.tag = 0
	}
}

// next makes the next field the current one.
func (c *codec) next() {
	before := c.tag
	c.tag = 0
	rest := c.b[c.pos:c.end]
	if len(rest) == 0 || c.err != nil {
		return
	}
	var tag, size uint64
	if len(rest) >= 2 && rest[0]|rest[1] < 0x80 { // nearly all of them
		tag, size = uint64(rest[0]), uint64(rest[1])
		rest = rest[2:]
	} else {
		var n, k int
		if tag, n = binary.Uvarint(rest); n <= 0 {
			c.malformed("no tag after field %d", before)
			return
		}
		if size, k = binary.Uvarint(rest[n:]); k <= 0 {
			c.malformed("no length of field %d", tag)
			return
		}
		rest = rest[n+k:]
	}
	if tag == 0 || tag < before {
		c.malformed("field %d after field %d", tag, before)
		return
	}
	if size > uint64(len(rest)) {
		c.malformed("field %d of %d bytes ends after %d", tag, size, len(rest))
		return
	}
	c.tag = tag
	c.from = c.end - len(rest)
	c.to = c.from + int(size)
	c.pos = c.to
}

// find skips unknown fields and reports whether the current one is tag.
func (c *codec) find(tag uint64) bool {
	for c.tag != 0 && c.tag < tag {
		c.next()
	}
	return c.tag == tag
}

// done leaves the current field, which may not come twice.
func (c *codec) done() {
	tag := c.tag
	c.next()
	if tag != 0 && c.tag == tag {
		c.malformed("field %d twice", tag)
	}
}

// finish skips the fields that are left.
func (c *codec) finish() {
	for c.tag != 0 {
		c.next()
	}
}

// head writes the tag and the length of a value.
func (c *codec) head(tag uint64, n int) {
	if tag < 0x80 && n < 0x80 { // nearly all of them
		c.b = append(c.b, byte(tag), byte(n))
		return
	}
	c.b = binary.AppendUvarint(c.b, tag)
	c.b = binary.AppendUvarint(c.b, uint64(n))
}

// number is the field tag with an unsigned value of at most limit.
func (c *codec) number(tag, v, limit uint64) uint64 {
	switch c.mode {
	case encode:
		if v == 0 {
			break
		}
		n := (bits.Len64(v) + 7) / 8
		c.head(tag, n)
		for i := n - 1; i >= 0; i-- {
			c.b = append(c.b, byte(v>>(8*i)))
		}
	case decode:
		if !c.find(tag) {
			break
		}
		value := c.value()
		if len(value) > 8 {
			c.malformed("field %d is an integer of %d bytes", tag, len(value))
			break
		}
		if len(value) > 0 && value[0] == 0 {
			c.malformed("field %d is an integer with a leading zero", tag)
			break
		}
		var n uint64
		for _, b := range value {
			n = n<<8 | uint64(b)
		}
		if n > limit {
			c.malformed("field %d is %d, limit %d", tag, n, limit)
			break
		}
		v = n
		c.done()
	}
	return v
}
