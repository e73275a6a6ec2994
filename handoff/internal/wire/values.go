package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"
)

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
