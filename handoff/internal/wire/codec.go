package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"reflect"
	"slices"
)

// Append appends m's payload to dst and returns the result. It does not check
// limits, see [Check], but it cuts texts and builds that are too long: a long text must
// not keep the message from the peer.
func Append(dst []byte, m Message) []byte {
	return messages[m.Type()].append(dst, reflect.ValueOf(m).Elem())
}

// Check returns an error that matches [ErrTooLarge] if the peer would refuse m
// for one of the limits. It doesn't know the size of a whole [Conns] message,
// which the sender bounds (see [EntryOverhead]).
func Check(m Message) error { return messages[m.Type()].check(reflect.ValueOf(m).Elem()) }

// Decode returns the message of type t that payload holds. The message does not
// refer to payload. Errors match [ErrUnknownType], [ErrMalformed] or
// [ErrTooLarge].
func Decode(t Type, payload []byte) (Message, error) {
	s := messages[t]
	if s == nil {
		return nil, fmt.Errorf("%w: %d", ErrUnknownType, uint16(t))
	}
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrTooLarge, t, len(payload))
	}
	v := reflect.New(s.of)
	// The strings of the message are parts of this one: many short copies take longer.
	if err := s.decode(string(payload), v.Elem()); err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, t)
	}
	return v.Interface().(Message), nil
}

func (s *structure) append(b []byte, v reflect.Value) []byte {
	for i := range s.fields {
		b = s.fields[i].append(b, v.Field(s.fields[i].index))
	}
	return b
}

func (f *field) append(b []byte, v reflect.Value) []byte {
	switch {
	case f.kind == reflect.String && f.cut:
		return appendValue(b, f.tag, cutOff(v.String(), f.bytes))
	case f.kind == reflect.String:
		return appendValue(b, f.tag, v.String())
	case f.kind != reflect.Slice:
		n := f.numberOf(v)
		var value [8]byte
		binary.BigEndian.PutUint64(value[:], n)
		return appendValue(b, f.tag, value[bits.LeadingZeros64(n)/8:])
	case f.elem != nil:
		for i := range v.Len() {
			start := len(b)
			b = f.elem.append(b, v.Index(i))
			var h [2 * binary.MaxVarintLen64]byte
			b = slices.Insert(b, start, head(h[:0], f.tag, len(b)-start)...)
		}
	case f.list:
		for i := range v.Len() {
			b = append(head(b, f.tag, v.Index(i).Len()), v.Index(i).String()...)
		}
	default:
		b = appendValue(b, f.tag, v.Bytes())
	}
	return b
}

// appendValue appends a field, unless its value is empty.
func appendValue[T string | []byte](b []byte, tag uint64, value T) []byte {
	if len(value) == 0 {
		return b
	}
	return append(head(b, tag, len(value)), value...)
}

// head appends the tag and the length of a value.
func head(b []byte, tag uint64, n int) []byte {
	if tag < 0x80 && n < 0x80 { // nearly all of them
		return append(b, byte(tag), byte(n))
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, tag), uint64(n))
}

// numberOf returns the unsigned integer that stands for v.
func (f *field) numberOf(v reflect.Value) uint64 {
	switch f.kind {
	case reflect.Bool:
		if v.Bool() {
			return 1
		}
		return 0
	case reflect.Int32, reflect.Int64:
		n := v.Int()
		return uint64(n)<<1 ^ uint64(n>>63)
	}
	return v.Uint()
}

// setNumber is the reverse of numberOf. It reports false if n is too large.
func (f *field) setNumber(v reflect.Value, n uint64) bool {
	switch f.kind {
	case reflect.Bool:
		v.SetBool(n == 1)
		return n <= 1
	case reflect.Int32, reflect.Int64:
		i := int64(n>>1) ^ -int64(n&1)
		v.SetInt(i)
		return !v.OverflowInt(i)
	}
	v.SetUint(n)
	return !v.OverflowUint(n)
}

// decode sets the fields of v by b. It skips those that it does not know.
func (s *structure) decode(b string, v reflect.Value) error {
	fields, before := s.fields, uint64(0)
	for len(b) > 0 {
		tag, value, rest, err := next(b)
		if err != nil {
			return err
		}
		if tag == 0 || tag < before {
			return malformed("field %d after field %d", tag, before)
		}
		for len(fields) > 0 && fields[0].tag < tag {
			fields = fields[1:]
		}
		if len(fields) > 0 && fields[0].tag == tag {
			f := &fields[0]
			if tag == before && !f.list {
				return malformed("field %d twice", tag)
			}
			if err := f.decode(value, rest, v.Field(f.index)); err != nil {
				return err
			}
		}
		b, before = rest, tag
	}
	return nil
}

// next returns the first field of b, and what follows it.
func next(b string) (tag uint64, value, rest string, err error) {
	var size uint64
	if len(b) >= 2 && b[0]|b[1] < 0x80 { // nearly all of them
		tag, size, b = uint64(b[0]), uint64(b[1]), b[2:]
	} else {
		var n, k int
		if tag, n = uvarint(b); n <= 0 {
			return 0, "", "", malformed("no tag")
		}
		if size, k = uvarint(b[n:]); k <= 0 {
			return 0, "", "", malformed("no length of field %d", tag)
		}
		b = b[n+k:]
	}
	if size > uint64(len(b)) {
		return 0, "", "", malformed("field %d of %d bytes ends after %d", tag, size, len(b))
	}
	return tag, b[:size], b[size:], nil
}

func uvarint(b string) (uint64, int) {
	return binary.Uvarint([]byte(b[:min(len(b), binary.MaxVarintLen64)]))
}

// decode sets v, or adds to it if it is a list. rest is what follows the value.
func (f *field) decode(value, rest string, v reflect.Value) error {
	switch {
	case f.list:
		i := v.Len()
		if i == 0 {
			n, err := f.count(rest)
			if err != nil {
				return err
			}
			v.Set(reflect.MakeSlice(v.Type(), 0, n+1))
		}
		v.SetLen(i + 1)
		if f.elem != nil {
			return f.elem.decode(value, v.Index(i))
		}
		v.Index(i).SetString(value)
		return f.fits(len(value))
	case f.kind == reflect.String:
		v.SetString(value)
		return f.fits(len(value))
	case f.kind == reflect.Slice:
		if len(value) > 0 {
			v.SetBytes([]byte(value))
		}
		return f.fits(len(value))
	case len(value) > 8:
		return malformed("field %d is an integer of %d bytes", f.tag, len(value))
	case len(value) > 0 && value[0] == 0:
		return malformed("field %d is an integer with a leading zero", f.tag)
	}
	var n uint64
	for i := range len(value) {
		n = n<<8 | uint64(value[i])
	}
	if !f.setNumber(v, n) {
		return malformed("field %d is %d", f.tag, n)
	}
	return nil
}

// count returns how many of the fields that b begins with are entries of the list.
func (f *field) count(b string) (n int, err error) {
	for n = 0; len(b) > 0; n++ {
		tag, _, rest, err := next(b)
		if err != nil || tag != f.tag {
			return n, err
		}
		if n+1 == MaxEntries {
			return 0, f.tooLarge(n+2, MaxEntries)
		}
		b = rest
	}
	return n, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
