package handoff_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
)

// FuzzConversationFD reads what another program may have put into the
// environment.
func FuzzConversationFD(f *testing.F) {
	for _, v := range []string{"3", "", "2", "-3", "03", "4294967299", "3 ", "0x3", "9223372036854775807"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		fd, err := handoff.ConversationFD(v)
		switch {
		case err != nil && (fd != 0 || !errors.Is(err, handoff.ErrProtocol)):
			t.Errorf("ConversationFD(%q) = %d, %v, want ErrProtocol", v, fd, err)
		case err == nil && (fd < 3 || fd > math.MaxInt32):
			t.Errorf("ConversationFD(%q) = %d", v, fd)
		}
	})
}

// FuzzRequest reads what a tool may send as the body of a request.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"executable":"/a","timeout":60000000000,"wait":"linger"}`))
	f.Add([]byte(`{"reason":"no","wait":"none"}`))
	f.Add([]byte(`{"follow":true}`))
	f.Add([]byte(`{"timeout":1e99,"wait":[]}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		for op, into := range map[string]any{
			operate.OpUpgrade: new(operate.Upgrade), operate.OpRollback: new(operate.Rollback),
			operate.OpDrain: new(operate.Drain), operate.OpEvents: new(operate.Events),
		} {
			if err := handoff.RequestBody(op, body, into); err != nil {
				if !errors.Is(err, handoff.ErrProtocol) {
					t.Errorf("%s, %q: %v, want ErrProtocol", op, body, err)
				}
				continue
			}
			// What was understood is said and read as the same.
			b, err := json.Marshal(into)
			if err != nil {
				t.Fatalf("%s, %q: %v", op, body, err)
			}
			again := reflect.New(reflect.TypeOf(into).Elem()).Interface()
			if err := handoff.RequestBody(op, b, again); err != nil || !reflect.DeepEqual(into, again) {
				t.Errorf("%s, %q: %+v, %v after a second round, want %+v", op, body, again, err, into)
			}
		}
	})
}
