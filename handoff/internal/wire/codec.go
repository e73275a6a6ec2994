package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"
)

// Append appends m's payload to dst and returns the result. It does not check
// limits, see [Check]; but it cuts texts and builds that are too long, so that
// a long text can't keep the news from the peer.
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

// Only decoding writes to a message: several goroutines may encode the same one.

func (c *codec) uint64(tag uint64, v *uint64) {
	if n := c.number(tag, *v, math.MaxUint64); c.mode == decode {
		*v = n
	}
}

func (c *codec) uint32(tag uint64, v *uint32) {
	if n := c.number(tag, uint64(*v), math.MaxUint32); c.mode == decode {
		*v = uint32(n)
	}
}

func (c *codec) int64(tag uint64, v *int64) {
	if n := c.number(tag, uint64(*v)<<1^uint64(*v>>63), math.MaxUint64); c.mode == decode {
		*v = int64(n>>1) ^ -int64(n&1)
	}
}

func (c *codec) int32(tag uint64, v *int32) {
	if n := c.number(tag, uint64(uint32(*v)<<1^uint32(*v>>31)), math.MaxUint32); c.mode == decode {
		*v = int32(uint32(n)>>1) ^ -int32(n&1)
	}
}

func (c *codec) bool(tag uint64, v *bool) {
	var n uint64
	if *v {
		n = 1
	}
	if n = c.number(tag, n, 1); c.mode == decode {
		*v = n == 1
	}
}

func (c *codec) string(tag uint64, v *string, limit int) {
	switch c.mode {
	case encode:
		if *v != "" {
			c.head(tag, len(*v))
			c.b = append(c.b, *v...)
		}
	case decode:
		if c.find(tag) && c.fits(tag, limit) {
			*v = c.stringValue()
			c.done()
		}
	case check:
		if len(*v) > limit {
			c.tooLarge(tag, len(*v), limit)
		}
	}
}

// text is a string for people, which is cut when it is too long.
func (c *codec) text(tag uint64, v *string, limit int) {
	switch c.mode {
	case encode:
		s := cut(*v, limit)
		c.string(tag, &s, limit)
	case decode:
		c.string(tag, v, limit)
	}
}

// cut returns at most limit bytes of s, and no part of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := limit
	for n > limit-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func (c *codec) bytes(tag uint64, v *[]byte, limit int) {
	switch c.mode {
	case encode:
		if len(*v) > 0 {
			c.head(tag, len(*v))
			c.b = append(c.b, *v...)
		}
	case decode:
		if c.find(tag) && c.fits(tag, limit) {
			*v = c.bytesValue()
			c.done()
		}
	case check:
		if len(*v) > limit {
			c.tooLarge(tag, len(*v), limit)
		}
	}
}

func (c *codec) strings(tag uint64, v *[]string, limit int) {
	switch c.mode {
	case encode:
		for _, s := range *v {
			c.head(tag, len(s))
			c.b = append(c.b, s...)
		}
	case decode:
		n := c.count(tag)
		if n == 0 {
			return
		}
		list := make([]string, 0, n)
		for c.tag == tag && c.fits(tag, limit) {
			list = append(list, c.stringValue())
			c.next()
		}
		*v = list
	case check:
		if len(*v) > MaxEntries {
			c.tooLarge(tag, len(*v), MaxEntries)
		}
		for _, s := range *v {
			if len(s) > limit {
				c.tooLarge(tag, len(s), limit)
			}
		}
	}
}

// structs is the field tag with a list of structs.
func structs[T any, P interface {
	*T
	fields(c *codec)
}](c *codec, tag uint64, v *[]T) {
	switch c.mode {
	case encode:
		for i := range *v {
			c.b = binary.AppendUvarint(c.b, tag)
			start := len(c.b)
			c.b = append(c.b, 0) // the length, if it fits in one byte
			P(&(*v)[i]).fields(c)
			c.putLength(start)
		}
	case decode:
		n := c.count(tag)
		if n == 0 {
			return
		}
		list := make([]T, n)
		for i := range list {
			end := c.end
			c.pos, c.end, c.tag = c.from, c.to, 0
			c.next()
			P(&list[i]).fields(c)
			c.finish()
			if c.err != nil {
				return
			}
			c.end, c.tag = end, tag
			c.next()
		}
		*v = list
	case check:
		if len(*v) > MaxEntries {
			c.tooLarge(tag, len(*v), MaxEntries)
			return
		}
		for i := range *v {
			P(&(*v)[i]).fields(c)
		}
	}
}

// putLength writes the length of the value that follows the placeholder byte at
// start, and makes room for it.
func (c *codec) putLength(start int) {
	n := len(c.b) - start - 1
	var head [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(head[:], uint64(n))
	if k > 1 {
		c.b = append(c.b, head[1:k]...)
		copy(c.b[start+k:], c.b[start+1:start+1+n])
	}
	copy(c.b[start:], head[:k])
}

// count makes tag the current field and returns how often it comes, 0 also
// where that is too often.
func (c *codec) count(tag uint64) int {
	if !c.find(tag) {
		return 0
	}
	ahead := *c
	n := 0
	for ahead.tag == tag {
		n++
		if n > MaxEntries {
			c.tooLarge(tag, n, MaxEntries)
			return 0
		}
		ahead.next()
	}
	if ahead.err != nil {
		c.err, c.tag = ahead.err, 0
		return 0
	}
	return n
}

// fits reports whether the current value keeps to limit.
func (c *codec) fits(tag uint64, limit int) bool {
	if n := c.to - c.from; n > limit {
		c.tooLarge(tag, n, limit)
		return false
	}
	return true
}

// value returns the current value, a part of the payload.
func (c *codec) value() []byte { return c.b[c.from:c.to] }

// stringValue returns the current value as a string.
func (c *codec) stringValue() string {
	if c.copied != "" {
		return c.copied[c.from:c.to]
	}
	return string(c.value())
}

// bytesValue returns a copy of the current value, nil if it is empty.
func (c *codec) bytesValue() []byte {
	if c.from == c.to {
		return nil
	}
	if c.copiedBytes != nil {
		return c.copiedBytes[c.from:c.to:c.to]
	}
	return bytes.Clone(c.value())
}
