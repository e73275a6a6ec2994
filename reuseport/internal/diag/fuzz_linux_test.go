package diag_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// FuzzAnswer reads what may come as an answer of sock_diag. The seeds are the
// kernel's (6.18).
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		tuple, err := diag.ParseTuple(b)
		s, serr := diag.ParseSocket(b)
		if err != nil && serr == nil {
			t.Fatalf("ParseSocket(%x) = %+v of an answer without addresses: %v", b, s, err)
		}
		if err == nil && (!tuple.Local.Addr().IsValid() || !tuple.Remote.Addr().IsValid()) {
			t.Errorf("ParseTuple(%x) = %+v", b, tuple)
		}
		if serr == nil && (s.Local != tuple.Local) {
			t.Errorf("ParseSocket(%x) = %+v, local address %v", b, s, tuple.Local)
		}
		if n, backlog, err := diag.ParseUnixQueue(b); err != nil && (n != 0 || backlog != 0) || n < 0 || backlog < 0 {
			t.Errorf("ParseUnixQueue(%x) = %d, %d, %v", b, n, backlog, err)
		}
	})
}
