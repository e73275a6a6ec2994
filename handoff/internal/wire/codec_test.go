package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// field is one field in the encoding that the package documentation describes,
// written down here a second time.
func field(tag uint64, value string) string {
	b := binary.AppendUvarint(nil, tag)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return string(b) + value
}

func TestAppendAppends(t *testing.T) {
	t.Parallel()
	for _, m := range samples {
		want := append([]byte("head"), wire.Append(nil, m)...)
		if got := wire.Append([]byte("head"), m); !bytes.Equal(got, want) {
			t.Errorf("Append(head, %s) = %x, want %x", m.Type(), got, want)
		}
	}
}

func TestEncoding(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		m    wire.Message
		want string
	}{
		{&wire.Ack{}, ""},
		{&wire.Ack{Seq: 1, Taken: 256}, field(1, "\x01") + field(2, "\x01\x00")},
		{&wire.Committed{Accepted: math.MaxUint64}, field(1, "\xff\xff\xff\xff\xff\xff\xff\xff")},
		{&wire.Paused{Queue: -1, HalfOpen: math.MinInt64}, field(1, "\x01") + field(2, "\xff\xff\xff\xff\xff\xff\xff\xff")},
		{&wire.Paused{Queue: 1, HalfOpen: math.MaxInt64}, field(1, "\x02") + field(2, "\xff\xff\xff\xff\xff\xff\xff\xfe")},
		{&wire.Linger{Remaining: time.Microsecond}, field(4, "\x07\xd0")},
		{&wire.Ping{Final: true}, field(2, "\x01")},
		{&wire.Ready{Conns: []string{"a", "", "b"}}, field(1, "a") + field(1, "") + field(1, "b")},
		{&wire.States{Entries: []wire.State{{}, {Name: long, Size: 3}}}, field(2, "") + field(2, field(1, long)+field(2, "\x03"))},
		{
			&wire.Sockets{Entries: []wire.Socket{{Domain: math.MinInt32, SockType: math.MaxInt32, Protocol: -1}}},
			field(3, field(7, "\xff\xff\xff\xff")+field(8, "\xff\xff\xff\xfe")+field(9, "\x01")),
		},
	} {
		got := wire.Append(nil, tt.m)
		if string(got) != tt.want {
			t.Errorf("Append(%+v) = %x, want %x", tt.m, got, tt.want)
		}
		back, err := wire.Decode(tt.m.Type(), got)
		if err != nil {
			t.Errorf("Decode(Append(%+v)): %v", tt.m, err)
		} else if diff := cmp.Diff(tt.m, back); diff != "" {
			t.Errorf("round trip (-want +got):\n%s", diff)
		}
	}
}

// TestUnknownFields puts fields that this version doesn't know before, between
// and behind the known ones, in structs too.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	got, err := wire.Decode(wire.TypeStates, []byte(
		field(1, "\x07")+
			field(2, field(1, "a")+field(2, "\x01")+field(3, "new")+field(3, "twice"))+
			field(2, field(9, ""))+
			field(3, "unknown")+field(1<<40, strings.Repeat("u", 1000))))
	if err != nil {
		t.Fatal(err)
	}
	want := &wire.States{Seq: 7, Entries: []wire.State{{Name: "a", Size: 1}, {}}}
	if diff := cmp.Diff(wire.Message(want), got); diff != "" {
		t.Errorf("Decode (-want +got):\n%s", diff)
	}
	got, err = wire.Decode(wire.TypeVerified, []byte(field(5, "x")))
	if err != nil || got.Type() != wire.TypeVerified {
		t.Errorf("Decode(Verified with an unknown field) = %v, %v", got, err)
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	entries := func(tag uint64, n int) string { return strings.Repeat(field(tag, ""), n) }
	for _, tt := range []struct {
		name    string
		typ     wire.Type
		payload string
		want    error
	}{
		{"unknown type", 999, "", wire.ErrUnknownType},
		{"type 0", 0, "", wire.ErrUnknownType},
		{"payload", wire.TypeVerified, long(wire.MaxPayload + 1), wire.ErrTooLarge},
		{"tag 0", wire.TypeAck, field(0, "x"), wire.ErrMalformed},
		{"tag alone", wire.TypeAck, "\x01", wire.ErrMalformed},
		{"endless tag", wire.TypeAck, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", wire.ErrMalformed},
		{"length past the end", wire.TypeAck, "\x01\x02\x01", wire.ErrMalformed},
		{"length of 2^64-1", wire.TypeAck, "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", wire.ErrMalformed},
		{"order", wire.TypeAck, field(2, "\x01") + field(1, "\x01"), wire.ErrMalformed},
		{"order of unknown fields", wire.TypeAck, field(9, "") + field(8, ""), wire.ErrMalformed},
		{"twice", wire.TypeAck, field(1, "\x01") + field(1, "\x01"), wire.ErrMalformed},
		{"string twice", wire.TypeAbort, field(1, "a") + field(1, "b"), wire.ErrMalformed},
		{"bytes twice", wire.TypeRequest, field(2, "a") + field(2, "b"), wire.ErrMalformed},
		{"uint32 of 5 bytes", wire.TypeAck, field(1, "\x01\x00\x00\x00\x00"), wire.ErrMalformed},
		{"int32 of 5 bytes", wire.TypeSockets, field(3, field(7, "\x01\x00\x00\x00\x00")), wire.ErrMalformed},
		{"uint64 of 9 bytes", wire.TypeCommitted, field(1, "\x01\x00\x00\x00\x00\x00\x00\x00\x00"), wire.ErrMalformed},
		{"leading zero", wire.TypeAck, field(1, "\x00\x01"), wire.ErrMalformed},
		{"bool of 2", wire.TypePing, field(2, "\x02"), wire.ErrMalformed},
		{"broken entry", wire.TypeStates, field(2, "\x01"), wire.ErrMalformed},
		{"broken second entry", wire.TypeStates, field(2, "") + field(2, field(2, "\x01")+field(1, "a")), wire.ErrMalformed},
		{"broken after list", wire.TypeStates, field(2, "") + "\x03", wire.ErrMalformed},
		{"build", wire.TypeHello, field(4, long(wire.MaxBuild+1)), wire.ErrTooLarge},
		{"reason", wire.TypeAbort, field(1, long(wire.MaxText+1)), wire.ErrTooLarge},
		{"name", wire.TypeSockets, field(3, field(2, long(wire.MaxName+1))), wire.ErrTooLarge},
		{"network", wire.TypeSockets, field(3, field(3, long(wire.MaxNetwork+1))), wire.ErrTooLarge},
		{"address", wire.TypeSockets, field(3, field(4, long(wire.MaxAddress+1))), wire.ErrTooLarge},
		{"bound", wire.TypeSockets, field(3, field(6, long(wire.MaxAddress+1))), wire.ErrTooLarge},
		{"sockname", wire.TypeSockets, field(3, field(11, long(wire.MaxSockname+1))), wire.ErrTooLarge},
		{"sockets", wire.TypeSockets, entries(3, wire.MaxEntries+1), wire.ErrTooLarge},
		{"states", wire.TypeStates, entries(2, wire.MaxEntries+1), wire.ErrTooLarge},
		{"conns", wire.TypeConns, entries(2, wire.MaxEntries+1), wire.ErrTooLarge},
		{"names", wire.TypeReady, entries(1, wire.MaxEntries+1), wire.ErrTooLarge},
		{"name in names", wire.TypeReady, field(1, long(wire.MaxName+1)), wire.ErrTooLarge},
		{"conn state", wire.TypeConns, field(2, field(2, long(wire.MaxConnState+1))), wire.ErrTooLarge},
		{"op", wire.TypeRequest, field(1, long(wire.MaxOp+1)), wire.ErrTooLarge},
		{"body", wire.TypeResponse, field(2, long(wire.MaxBody+1)), wire.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := wire.Decode(tt.typ, []byte(tt.payload))
			if !errors.Is(err, tt.want) || m != nil {
				t.Errorf("Decode = %v, %v, want nil, %v", m, err, tt.want)
			}
		})
	}
}

// TestLimits shows that what is as large as allowed passes Check and Decode,
// and that Check finds what the peer would refuse.
func TestLimits(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		name string
		make func(more int) wire.Message
	}{
		{"name", func(n int) wire.Message {
			return &wire.Sockets{Entries: []wire.Socket{{Name: long(wire.MaxName + n)}}}
		}},
		{"network", func(n int) wire.Message {
			return &wire.Sockets{Entries: []wire.Socket{{Network: long(wire.MaxNetwork + n)}}}
		}},
		{"address", func(n int) wire.Message {
			return &wire.Sockets{Entries: []wire.Socket{{Address: long(wire.MaxAddress + n)}}}
		}},
		{"sockname", func(n int) wire.Message {
			return &wire.Sockets{Entries: []wire.Socket{{Sockname: []byte(long(wire.MaxSockname + n))}}}
		}},
		{"sockets", func(n int) wire.Message { return &wire.Sockets{Entries: make([]wire.Socket, wire.MaxEntries+n)} }},
		{"states", func(n int) wire.Message { return &wire.States{Entries: make([]wire.State, wire.MaxEntries+n)} }},
		{"conns", func(n int) wire.Message { return &wire.Conns{Entries: make([]wire.Conn, wire.MaxEntries+n)} }},
		{"names", func(n int) wire.Message { return &wire.Ready{Conns: make([]string, wire.MaxEntries+n)} }},
		{"name in names", func(n int) wire.Message { return &wire.Ready{Conns: []string{long(wire.MaxName + n)}} }},
		{"conn state", func(n int) wire.Message {
			return &wire.Conns{Entries: []wire.Conn{{State: []byte(long(wire.MaxConnState + n))}}}
		}},
		{"op", func(n int) wire.Message { return &wire.Request{Op: long(wire.MaxOp + n)} }},
		{"body", func(n int) wire.Message {
			return &wire.Response{Final: true, Body: []byte(long(wire.MaxBody + n)), Version: math.MaxUint32}
		}},
		{"request", func(n int) wire.Message {
			return &wire.Request{Op: long(wire.MaxOp), Body: []byte(long(wire.MaxBody + n)), MinVersion: math.MaxUint32, MaxVersion: math.MaxUint32}
		}},
		{"account", func(n int) wire.Message { return &wire.Account{Body: []byte(long(wire.MaxBody + n))} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := tt.make(0)
			if err := wire.Check(m); err != nil {
				t.Errorf("Check(as large as allowed) = %v", err)
			}
			payload := wire.Append(nil, m)
			if len(payload) > wire.MaxPayload {
				t.Errorf("payload of %d bytes, limit %d", len(payload), wire.MaxPayload)
			}
			got, err := wire.Decode(m.Type(), payload)
			if err != nil {
				t.Fatalf("Decode(as large as allowed) = %v", err)
			}
			if !reflect.DeepEqual(m, got) { // a diff of 1 MiB takes seconds
				t.Error("Decode(Append(m)) is not m")
			}
			if err := wire.Check(tt.make(1)); !errors.Is(err, wire.ErrTooLarge) {
				t.Errorf("Check(one more) = %v, want ErrTooLarge", err)
			}
		})
	}
}

// TestLargestSockets shows that no Sockets and no States message that passes
// Check can be too large for a frame, and that EntryOverhead is enough.
func TestLargestSockets(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	all := wire.Socket{
		Kind: math.MaxUint32, Name: long(wire.MaxName), Network: long(wire.MaxNetwork), Address: long(wire.MaxAddress),
		Shard: math.MaxUint32, Bound: long(wire.MaxAddress), Domain: math.MinInt32, SockType: math.MinInt32,
		Protocol: math.MinInt32, Listening: true, Sockname: make([]byte, wire.MaxSockname), FileMode: math.MaxUint32,
		PathDev: math.MaxUint64, PathIno: math.MaxUint64,
	}
	for _, m := range []wire.Message{
		&wire.Sockets{Seq: math.MaxUint32, First: math.MaxUint32, Entries: slices.Repeat([]wire.Socket{all}, wire.MaxEntries)},
		&wire.States{Seq: math.MaxUint32, Entries: slices.Repeat([]wire.State{{Name: long(wire.MaxName), Size: math.MaxUint64}}, wire.MaxEntries)},
		&wire.Ready{Conns: slices.Repeat([]string{long(wire.MaxName)}, wire.MaxEntries)},
	} {
		if err := wire.Check(m); err != nil {
			t.Errorf("Check(%s) = %v", m.Type(), err)
		}
		if n := len(wire.Append(nil, m)); n > wire.MaxPayload {
			t.Errorf("%s takes %d bytes, limit %d", m.Type(), n, wire.MaxPayload)
		}
	}
	c := wire.Conn{Name: long(wire.MaxName), State: make([]byte, wire.MaxConnState)}
	one := len(wire.Append(nil, &wire.Conns{Entries: []wire.Conn{c}}))
	if most := len(c.Name) + len(c.State) + wire.EntryOverhead; one > most {
		t.Errorf("a connection takes %d bytes, EntryOverhead allows %d", one, most)
	}
}

// TestTextIsCut shows that a reason that is too long still gets through, cut
// between two characters.
func TestTextIsCut(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Repeat("x", wire.MaxText+1),
		strings.Repeat("é", wire.MaxText),
		"x" + strings.Repeat("é", wire.MaxText),
		strings.Repeat("\x80", wire.MaxText+1), // no UTF-8
	} {
		m := &wire.Abort{Text: text}
		if err := wire.Check(m); err != nil {
			t.Errorf("Check = %v", err)
		}
		back, err := wire.Decode(m.Type(), wire.Append(nil, m))
		if err != nil {
			t.Fatal(err)
		}
		got := back.(*wire.Abort).Text
		if len(got) > wire.MaxText || len(got) < wire.MaxText-utf8.UTFMax || !strings.HasPrefix(text, got) {
			t.Errorf("cut to %d bytes", len(got))
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("cut inside a character")
		}
		if m.Text != text {
			t.Errorf("Append changed the message")
		}
	}
}

// TestTruncated cuts each sample at each byte: an error or fewer fields, but no
// panic and nothing that was not sent.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, m := range samples {
		payload := wire.Append(nil, m)
		for n := range payload {
			got, err := wire.Decode(m.Type(), payload[:n:n])
			if err != nil {
				if !errors.Is(err, wire.ErrMalformed) {
					t.Errorf("Decode(%s cut at %d) = %v, want ErrMalformed", m.Type(), n, err)
				}
				continue
			}
			if back := wire.Append(nil, got); !bytes.Equal(back, payload[:n]) {
				t.Errorf("Decode(%s cut at %d) = %+v", m.Type(), n, got)
			}
		}
	}
}

// TestDecodeCopies shows that a message outlives the payload it came from.
func TestDecodeCopies(t *testing.T) {
	t.Parallel()
	for _, m := range samples {
		payload := wire.Append(make([]byte, 0, 4096), m)
		got, err := wire.Decode(m.Type(), payload)
		if err != nil {
			t.Fatal(err)
		}
		for i := range payload {
			payload[i] = 0xee
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("changed with its payload (-want +got):\n%s", diff)
		}
	}
}

// memory returns how many bytes v refers to.
func memory(v reflect.Value) int {
	switch v.Kind() {
	case reflect.Pointer:
		return int(v.Type().Elem().Size()) + memory(v.Elem())
	case reflect.Struct:
		n := 0
		for i := range v.NumField() {
			n += memory(v.Field(i))
		}
		return n
	case reflect.Slice:
		n := v.Cap() * int(v.Type().Elem().Size())
		for i := range v.Len() {
			n += memory(v.Index(i))
		}
		return n
	case reflect.String:
		return v.Len()
	}
	return 0
}

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, typ uint16, payload []byte) {
		m, err := wire.Decode(wire.Type(typ), payload)
		if err != nil {
			if m != nil {
				t.Errorf("message %v beside error %v", m, err)
			}
			if !errors.Is(err, wire.ErrUnknownType) && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrTooLarge) {
				t.Errorf("error without a sentinel: %v", err)
			}
			return
		}
		// A slice made by bytes.Clone may have more capacity than it needs.
		limit := 4*len(payload) + (wire.MaxEntries+1)*int(reflect.TypeFor[wire.Socket]().Size())
		if n := memory(reflect.ValueOf(m)); n > limit {
			t.Errorf("%d bytes of payload became %d bytes, limit %d", len(payload), n, limit)
		}
		if err := wire.Check(m); err != nil {
			t.Errorf("Check(decoded) = %v", err)
		}
		again := wire.Append(nil, m)
		if len(again) > len(payload) {
			t.Errorf("%d bytes decoded, %d encoded", len(payload), len(again))
		}
		back, err := wire.Decode(m.Type(), again)
		if err != nil {
			t.Fatalf("Decode(Append(m)) = %v", err)
		}
		if !reflect.DeepEqual(m, back) {
			t.Errorf("round trip (-want +got):\n%s", cmp.Diff(m, back))
		}
	})
}

// manifest is a full Sockets message.
func manifest() *wire.Sockets {
	m := &wire.Sockets{Seq: 9, First: 253 * 9}
	for i := range wire.MaxEntries {
		s := samples[3].(*wire.Sockets).Entries[0]
		s.Name = fmt.Sprint("name-", i)
		s.Shard = uint32(i)
		m.Entries = append(m.Entries, s)
	}
	return m
}

func BenchmarkAppendSockets(b *testing.B) {
	m := manifest()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = wire.Append(buf[:0], m)
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}

func BenchmarkDecodeSockets(b *testing.B) {
	payload := wire.Append(nil, manifest())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Decode(wire.TypeSockets, payload); err != nil {
			b.Fatal(err)
		}
	}
}
