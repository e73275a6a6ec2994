package handoffhttp_test

import (
	"bytes"
	"crypto/tls"
	"slices"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// FuzzTickets reads what a predecessor may pass on as session ticket keys.
func FuzzTickets(f *testing.F) {
	now := time.Unix(1_700_000_000, 0)
	for _, age := range []time.Duration{0, 23 * time.Hour, 6 * 24 * time.Hour, -time.Hour} {
		keys, err := handoffhttp.NewTickets(&tls.Config{}, nil, func() time.Time { return now.Add(-age) })
		if err != nil {
			f.Fatal(err)
		}
		f.Add(keys.Encode())
	}
	f.Add(make([]byte, 16*40))
	f.Add(make([]byte, 41))
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := &tls.Config{}
		keys, err := handoffhttp.NewTickets(cfg, b, func() time.Time { return now })
		if err != nil {
			return
		}
		out := keys.Encode()
		if len(out) == 0 || len(out) > 16*40 {
			t.Fatalf("%d bytes of keys from %d", len(out), len(b))
		}
		again, err := handoffhttp.NewTickets(&tls.Config{}, out, func() time.Time { return now })
		if err != nil || !bytes.Equal(again.Encode(), out) {
			t.Errorf("a second round: %v, %x, want %x", err, again.Encode(), out)
		}
	})
}

// FuzzFrames reads what a client may send as HTTP/2, in pieces of any size.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678\x00\x00\x00\x04\x01\x00\x00\x00\x00"), uint16(3), uint16(11))
	f.Add([]byte("\xff\xff\xff\x00\x00\x80\x00\x00\x01"), uint16(9), uint16(9))
	f.Add([]byte(nil), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, first, second uint16) {
		want, between := handoffhttp.Frames(b)
		i, j := min(int(first), len(b)), min(int(second), len(b))
		if i > j {
			i, j = j, i
		}
		got, gotBetween := handoffhttp.Frames(b[:i], b[i:j], b[j:])
		if !slices.Equal(got, want) || gotBetween != between {
			t.Errorf("Frames(%x, %x, %x) = %q, %t, in one piece %q, %t", b[:i], b[i:j], b[j:], got, gotBetween, want, between)
		}
	})
}

// FuzzRead has a connection read in pieces of any size: what moves with it is
// the end of what net/http was given, and the line ends before a next request
// are not part of that.
func FuzzRead(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\nGE"), uint8(0), uint16(18), uint16(19))
	f.Add([]byte("\r\n\r\n\r\nGET"), uint8(4), uint16(1), uint16(5))
	f.Add([]byte("\n"), uint8(1), uint16(0), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, strip uint8, first, second uint16) {
		strip %= 5
		i, j := min(int(first), len(b)), min(int(second), len(b))
		if i > j {
			i, j = j, i
		}
		want := bytes.Clone(b)
		for n := strip; n > 0 && len(want) > 0 && (want[0] == '\r' || want[0] == '\n'); n-- {
			want = want[1:]
		}
		given, last := handoffhttp.Noted(strip, b[:i], b[i:j], b[j:])
		if !bytes.Equal(given, want) {
			t.Errorf("of %q, %q, %q, strip %d: %q, want %q", b[:i], b[i:j], b[j:], strip, given, want)
		}
		if end := want[max(0, len(want)-3):]; !bytes.Equal(last, end) {
			t.Errorf("of %q, %q, %q, strip %d: the end is %q, want %q", b[:i], b[i:j], b[j:], strip, last, end)
		}
	})
}
