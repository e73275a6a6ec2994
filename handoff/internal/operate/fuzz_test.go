package operate_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
)

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
			if err := operate.RequestBody(op, body, into); err != nil {
				if !errors.Is(err, failure.Protocol) {
					t.Errorf("%s, %q: %v, want a protocol error", op, body, err)
				}
				continue
			}
			// What was understood is said and read as the same.
			b, err := json.Marshal(into)
			if err != nil {
				t.Fatalf("%s, %q: %v", op, body, err)
			}
			again := reflect.New(reflect.TypeOf(into).Elem()).Interface()
			if err := operate.RequestBody(op, b, again); err != nil || !reflect.DeepEqual(into, again) {
				t.Errorf("%s, %q: %+v, %v after a second round, want %+v", op, body, again, err, into)
			}
		}
	})
}
