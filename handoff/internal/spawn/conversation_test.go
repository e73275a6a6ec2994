package spawn_test

import (
	"errors"
	"math"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
)

// FuzzConversationFD reads what another program may have put into the
// environment.
func FuzzConversationFD(f *testing.F) {
	for _, v := range []string{"3", "", "2", "-3", "03", "4294967299", "3 ", "0x3", "9223372036854775807"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		fd, err := spawn.ConversationFD(v)
		switch {
		case err != nil && (fd != 0 || !errors.Is(err, failure.Protocol)):
			t.Errorf("ConversationFD(%q) = %d, %v, want failure.Protocol", v, fd, err)
		case err == nil && (fd < 3 || fd > math.MaxInt32):
			t.Errorf("ConversationFD(%q) = %d", v, fd)
		}
	})
}
