package handoffquic_test

import (
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// A pending request is one whose body has begun.
type pending struct {
	body *io.PipeWriter
	done chan error // its end; capacity 1
}

func (c *client) begin(t *testing.T) *pending {
	t.Helper()
	r, w := io.Pipe()
	p := &pending{w, make(chan error, 1)}
	go func() { // ends with the connection
		_, err := c.send(http.MethodPost, r)
		_ = r.CloseWithError(io.ErrClosedPipe) // for the writer
		p.done <- err
	}()
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGoaway lets the linger limit pass. The predecessor sends GOAWAY: an idle connection
// ends, and one with a request under way when that has its answer. After the grace the
// predecessor closes what is left. The report counts both.
func TestGoaway(t *testing.T) {
	testenv.Long(t, "TestUpgrade")
	t.Parallel()
	var idle, ends, stays *client
	var answered, cut *pending
	upgraded(t, rig.Service{Linger: 500 * time.Millisecond, Grace: 500 * time.Millisecond}, func(dir string, first int) {
		for _, c := range []**client{&idle, &ends, &stays} {
			*c = newClient(t, dir)
			(*c).want(t, "before", first)
		}
		answered, cut = ends.begin(t), stays.begin(t)
	}, func(dir string, _, second int) {
		await(t, "the end of the idle connection", idle.conn.Context().Done())
		if err := answered.body.Close(); err != nil {
			t.Errorf("the body after GOAWAY: %v", err)
		}
		if err := <-answered.done; err != nil {
			t.Errorf("the request under way at GOAWAY: %v", err)
		}
		if err := <-cut.done; err == nil {
			t.Error("a request that never ends has an answer")
		}
		awaitEvent(t, dir, "predecessor-done", second)
		ctl, err := control.New(&control.Config{Socket: filepath.Join(dir, "ctl", "s")})
		if err != nil {
			t.Fatal(err)
		}
		st, err := ctl.Status(t.Context())
		if err != nil || len(st.Upgrades) != 1 {
			t.Fatalf("status %+v, %v", st, err)
		}
		if got, want := st.Upgrades[0].CutBy, map[string]uint64{"quic goaway": 2, "quic": 1}; !maps.Equal(got, want) {
			t.Errorf("cut by %v, want %v", got, want)
		}
	})
}
