package handoffdebug_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/handoffdebug"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestSameFacts compares the JSON with what the control socket tells, which is
// what baton status --json prints.
func TestSameFacts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "c", "s")
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: path, Version: "1.0",
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if _, err := up.ListenNamed(t.Context(), "web", "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	client, err := control.New(&control.Config{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	want, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, body := ask(t, handoffdebug.Handler(up), http.MethodGet, handoffdebug.Path+"status.json")
	var got handoff.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Uptime < want.Uptime || got.PID != os.Getpid() || len(got.Sockets) != 1 {
		t.Errorf("status: %+v, want that of this process, a moment later than %+v", got, *want)
	}
	got.Uptime = want.Uptime
	if diff := cmp.Diff(*want, got); diff != "" {
		t.Errorf("status (-control +http):\n%s", diff)
	}
}
