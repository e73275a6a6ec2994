package wire_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// samples has one message of each type as it may come up in a conversation. The
// golden frames are made of it.
var samples = []wire.Message{
	&wire.Hello{MinVersion: 1, MaxVersion: 3, PID: 4711, Build: "api 2.7.1", Via: wire.ViaSpawn, Mode: 2},
	&wire.Welcome{
		Version: 1, Generation: 41, PID: 815, Build: "api 2.7.0", Mode: 1, Sockets: 300, States: 2,
		Probation: 2 * time.Second, HangTimeout: 5 * time.Second, ReadyTimeout: time.Minute, Name: "api",
	},
	&wire.Refuse{Reason: failure.InProgress, Text: "an upgrade is under way"},
	&wire.Sockets{Seq: 1, First: 253, Entries: []wire.Socket{
		{
			Kind: wire.KindListener, Network: "tcp", Address: ":8080", Shard: 3, Bound: "[::]:8080",
			Domain: 10, SockType: 1, Protocol: 262, Listening: true,
			Sockname: []byte{10, 0, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		},
		{
			Kind: wire.KindPacket, Name: "log", Network: "unixgram", Address: "/run/api/log", Bound: "/run/api/log",
			Domain: 1, SockType: 2, Sockname: []byte("\x01\x00/run/api/log\x00"), PathDev: 26, PathIno: 1234567,
		},
		{Kind: wire.KindFile, Name: "journal", FileMode: 0o100644},
		{Kind: wire.KindControl},
		{},
	}},
	&wire.States{Seq: 2, Entries: []wire.State{{Name: "cache", Size: 1 << 30}, {Name: "empty"}}},
	&wire.Ack{Seq: 2, Taken: 2},
	&wire.Verified{},
	&wire.Ready{Conns: []string{"ws", "", "redis"}, Tells: true, Left: []wire.Socket{{Kind: wire.KindListener, Network: "tcp", Address: ":80", Shard: 1}}, Warnings: []string{"tcp :80 is left"}},
	&wire.Paused{Queue: 7, HalfOpen: -1, Accepted: 99},
	&wire.Ping{Seq: 3, Final: true},
	&wire.Alive{Seq: 3, Accepted: 12},
	&wire.Commit{},
	&wire.Committed{Accepted: 13},
	&wire.Abort{Text: "database schema is too old"},
	&wire.Rollback{Text: "not ready after 1m"},
	&wire.RolledBack{Accepted: 14},
	&wire.Took{},
	&wire.Conns{Seq: 4, Entries: []wire.Conn{{Name: "ws", State: []byte{0, 1, 2, 255}}, {Name: "redis"}}},
	&wire.Taking{Seq: 4, Index: 1},
	&wire.Linger{Open: 20, Moved: 5, Cut: 1, Remaining: -time.Nanosecond},
	&wire.EndLinger{Text: "too many are lingering"},
	&wire.Bye{Open: 1, Moved: 24, Cut: 2, CutBy: []wire.Reason{{Text: "idle", Count: 1}, {Text: "request", Count: 1}}},
	&wire.Adopt{Seq: 5, Version: 1, Generation: 40, PID: 33, Build: "api 2.6.9"},
	&wire.Stderr{},
	&wire.Released{Kind: wire.KindPacket, Holders: 2},
	&wire.Account{Body: []byte(`{"totals":{"committed":40},"reports":[{"generation":41,"outcome":"committed"}]}`)},
	&wire.Request{Op: "upgrade", Body: []byte(`{"wait":"commit"}`), MinVersion: 1, MaxVersion: 3, Name: "api"},
	&wire.Response{Final: true, Body: []byte(`{"failure":{"reason":3,"text":"starting"}}`), Version: 1},
}

// fill sets each field of v, which must be settable, to something that is not
// zero and differs from its neighbours.
func fill(t *testing.T, v reflect.Value, n *uint64) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(*n)
	case reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n))
	default:
		t.Fatalf("fill can't set a %s", v.Type())
	}
}

// TestEveryField shows that no field is forgotten and no two share a tag.
func TestEveryField(t *testing.T) {
	t.Parallel()
	for _, s := range samples {
		t.Run(s.Type().String(), func(t *testing.T) {
			t.Parallel()
			m := reflect.New(reflect.TypeOf(s).Elem())
			var n uint64
			fill(t, m.Elem(), &n)
			want := m.Interface().(wire.Message)
			if err := wire.Check(want); err != nil {
				t.Fatalf("Check = %v", err)
			}
			got, err := wire.Decode(want.Type(), wire.Append(nil, want))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("round trip (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEveryType shows that samples has each type, and that no other is known.
func TestEveryType(t *testing.T) {
	t.Parallel()
	have := make(map[wire.Type]bool)
	for _, s := range samples {
		if have[s.Type()] {
			t.Errorf("two samples of %s", s.Type())
		}
		have[s.Type()] = true
	}
	for typ := range 1 << 16 {
		m, err := wire.Decode(wire.Type(typ), nil)
		if known := err == nil; known != have[wire.Type(typ)] {
			t.Errorf("Decode(%d) = %v, %v; a sample exists: %v", typ, m, err, !known)
		}
		if err == nil && m.Type() != wire.Type(typ) {
			t.Errorf("Decode(%d) has type %s", typ, m.Type())
		}
		if got := wire.Type(typ).String(); err == nil && "*wire."+got != reflect.TypeOf(m).String() {
			t.Errorf("Type(%d).String() = %s for a %T", typ, got, m)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		min, max uint32
		want     uint32
		ok       bool
	}{
		{1, 1, 1, true},
		{1, 9, wire.MaxVersion, true},
		{0, 1, 1, true},
		{0, 0, 0, false},
		{wire.MaxVersion + 1, 9, 0, false},
		{2, 1, 0, false},
		{0, 1<<32 - 1, wire.MaxVersion, true},
	} {
		if got, ok := wire.Choose(tt.min, tt.max); got != tt.want || ok != tt.ok {
			t.Errorf("Choose(%d, %d) = %d, %v, want %d, %v", tt.min, tt.max, got, ok, tt.want, tt.ok)
		}
	}
}
